"""The networks and losses, and each fault of the example code that this package grew from."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from fusewire.errors import InputError
from fusewire.models.gan import (
    Discriminator,
    Generator,
    MlpConfig,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)

SHAPES = [(1, 28, 28), (3, 8, 6), (1, 1, 1), (4, 3, 5)]
LOGITS = torch.linspace(-30, 30, 9, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [1, 5])
def test_any_image_shape(shape: tuple[int, int, int], batch: int) -> None:
    config = MlpConfig(image_shape=shape, noise_size=7)
    generator, discriminator = Generator(config), Discriminator(config)
    images = generator(generator.noise(batch))
    assert images.shape == (batch, *shape)
    assert bool(((images > 0) & (images < 1)).all())
    assert discriminator(images).shape == (batch,)


def test_the_networks_are_those_of_the_mission() -> None:
    config = MlpConfig()
    sizes = [tuple(weight.shape) for weight in Generator(config).parameters() if weight.ndim == 2]
    assert sizes == [(128, config.noise_size), (128, 128), (784, 128)]
    sizes = [tuple(w.shape) for w in Discriminator(config).parameters() if w.ndim == 2]
    assert sizes == [(128, 784), (128, 128), (1, 128)]


def test_seeded_noise_is_reproducible() -> None:
    generator = Generator(MlpConfig())
    first = generator.noise(3, torch.Generator().manual_seed(5))
    assert torch.equal(first, generator.noise(3, torch.Generator().manual_seed(5)))


@pytest.mark.parametrize(
    "sizes", [{"image_shape": (0, 2, 2)}, {"noise_size": 0}, {"hidden_sizes": (3, 0)}]
)
def test_impossible_sizes(sizes: dict) -> None:
    with pytest.raises(InputError, match="at least 1"):
        MlpConfig(**sizes)


def test_discriminator_gives_logits_and_the_sigmoid_is_applied_once() -> None:
    # The example applied a sigmoid in the network and another in the loss.
    discriminator = Discriminator(MlpConfig())
    with torch.no_grad():
        for weight in discriminator.parameters():
            weight.mul_(20)
    images = torch.rand(50, 1, 28, 28)
    logits = discriminator(images)
    assert logits.min() < 0 or logits.max() > 1
    assert torch.equal(discriminator.predict_proba(images), logits.sigmoid())


@pytest.mark.parametrize("target", [1.0, 0.9, 0.0])
def test_discriminator_loss_is_the_cross_entropy(target: float) -> None:
    real, fake = LOGITS, LOGITS.flip(0)[:4]
    expected = cross_entropy(real, torch.full_like(real, target))
    expected = expected + cross_entropy(fake, torch.zeros_like(fake))
    torch.testing.assert_close(discriminator_loss(real, fake, target), expected)


def test_generator_wants_its_images_called_real() -> None:
    # The example trained the generator towards zeros: to be caught.
    expected = cross_entropy(LOGITS, torch.ones_like(LOGITS))
    torch.testing.assert_close(generator_loss(LOGITS), expected)
    for kind in ("non_saturating", "minimax"):
        logits = torch.zeros(3, requires_grad=True)
        generator_loss(logits, kind).backward()
        assert logits.grad is not None
        assert bool((logits.grad < 0).all()), "a higher logit must lower the loss"


def test_minimax_vanishes_where_non_saturating_does_not() -> None:
    caught = torch.full((1,), -20.0, requires_grad=True)
    (weak,) = torch.autograd.grad(generator_loss(caught, "minimax"), caught)
    (strong,) = torch.autograd.grad(generator_loss(caught), caught)
    assert abs(weak.item()) < 1e-8
    assert strong.item() == pytest.approx(-1)
    both = generator_loss(LOGITS, "minimax") + cross_entropy(LOGITS, torch.zeros_like(LOGITS))
    torch.testing.assert_close(both, torch.zeros_like(both))


def test_losses_are_finite_however_sure_the_discriminator_is() -> None:
    extreme = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = discriminator_loss(extreme, extreme) + generator_loss(extreme)
    loss.backward()
    assert bool(loss.isfinite())
    assert extreme.grad is not None
    assert bool(extreme.grad.isfinite().all())


@pytest.mark.parametrize("shape", [(5, 1), (5, 5), ()])
def test_logits_of_another_shape_do_not_broadcast(shape: tuple[int, ...]) -> None:
    # Labels (batch,) against logits (batch, 1) broadcast to batch x batch in the example's loss.
    wrong, right = torch.zeros(shape), torch.zeros(5)
    for compute in (
        lambda: generator_loss(wrong),
        lambda: discriminator_loss(wrong, right),
        lambda: discriminator_loss(right, wrong),
    ):
        with pytest.raises(ValueError, match="one logit per image"):
            compute()


def test_gradient_penalty() -> None:
    weight = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    images = torch.rand(6, 2, dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty(images @ weight, images)  # the gradient is the weight: 25 / 2
    assert penalty.item() == pytest.approx(12.5)
    penalty.backward()
    torch.testing.assert_close(weight.grad, weight.detach())
