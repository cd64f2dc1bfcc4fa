"""Networks of every kind on samples of every shape, and the faults of the example code in them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fusewire.errors import InputError
from fusewire.models.gan import (
    ConvolutionalConfig,
    Discriminator,
    Draws,
    GanModel,
    Generator,
    MlpConfig,
    ResidualConfig,
)
from fusewire.models.gan.phase import PhaseShuffle

NETWORKS = {
    "mlp": MlpConfig(),
    "mlp, spectral": MlpConfig(spectral=True),
    "convolutional": ConvolutionalConfig(width=8, discriminator_norm="batch"),
    "convolutional, spectral": ConvolutionalConfig(width=8, discriminator_norm="spectral"),
    "residual": ResidualConfig(width=8),
}
SHAPES = [(1, 28, 28), (3, 8, 6), (1, 1, 1), (4, 3, 17), (1, 300), (2, 5)]


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_samples_of_any_shape(config: GanModel, shape: tuple[int, ...]) -> None:
    generator, discriminator = Generator(config, shape), Discriminator(config, shape)
    for batch in (2, 3):
        samples = generator(generator.noise(batch))
        assert samples.shape == (batch, *shape)
        low = 0.0 if config.head == "sigmoid" else -1.0
        assert bool(((samples >= low) & (samples <= 1)).all())
        assert discriminator(samples).shape == (batch,)


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_the_noise_asked_for_is_the_noise_there(config: GanModel) -> None:
    generator = Generator(dataclasses.replace(config, noise_size=5), (1, 8, 8))
    noise = generator.noise(3).requires_grad_()
    assert noise.shape == (3, 5)
    generator(noise).square().sum().backward()
    assert noise.grad is not None
    assert bool((noise.grad != 0).any(0).all()), "a number of the noise is not used"


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("conditioning", ["concatenation", "projection"])
def test_classes_change_what_is_made_and_what_is_said(config: GanModel, conditioning: str) -> None:
    torch.manual_seed(0)
    shape = (1, 8, 8)
    generator = Generator(config, shape, classes=4).eval()
    discriminator = Discriminator(config, shape, 4, conditioning).eval()
    noise = generator.noise(1).expand(4, -1)
    samples = generator(noise, torch.arange(4))
    assert not torch.equal(samples[0], samples[1])
    logits = discriminator(samples[:1].expand(4, -1, -1, -1), torch.arange(4))
    assert len(set(logits.tolist())) == 4
    with pytest.raises(ValueError, match="expected labels"):
        generator(noise)
    with pytest.raises(ValueError, match="expected labels"):
        discriminator(samples)


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_gradients_of_gradients_reach_every_weight(config: GanModel) -> None:
    discriminator = Discriminator(config, (2, 9, 7))
    samples = torch.rand(3, 2, 9, 7, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(samples).sum(), samples, create_graph=True)
    gradient.square().sum().backward()
    # A bias shifts no gradient; all else does.
    for name, weight in discriminator.named_parameters():
        assert name.endswith("bias") or weight.grad is not None, name


def test_the_dense_networks_are_those_of_the_mission() -> None:
    config = MlpConfig()
    generator, discriminator = (make(config, (1, 28, 28)) for make in (Generator, Discriminator))
    sizes = [tuple(weight.shape) for weight in generator.parameters() if weight.ndim == 2]
    assert sizes == [(128, config.noise_size), (128, 128), (784, 128)]
    sizes = [tuple(weight.shape) for weight in discriminator.parameters() if weight.ndim == 2]
    assert sizes == [(128, 784), (128, 128), (1, 128)]


def test_spectral_norm_makes_the_discriminator_lipschitz() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(MlpConfig(spectral=True), (50,))
    for _ in range(30):  # its power iteration
        discriminator(torch.rand(2, 50))
    for layer in discriminator.modules():
        if isinstance(layer, torch.nn.Linear):
            assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=0.02)
    a, b = torch.rand(200, 50), torch.rand(200, 50)
    apart = (discriminator(a) - discriminator(b)).abs()
    # Inputs are centred by 2x - 1, which doubles distances.
    assert bool((apart <= 2 * 1.05 * (a - b).norm(dim=1)).all())


def test_seeded_noise_is_reproducible() -> None:
    generator = Generator(MlpConfig(), (1, 28, 28))
    first = generator.noise(3, torch.Generator().manual_seed(5))
    assert torch.equal(first, generator.noise(3, torch.Generator().manual_seed(5)))


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (MlpConfig, {"noise_size": 0}),
        (MlpConfig, {"hidden_sizes": (3, 0)}),
        (MlpConfig, {"hidden_sizes": ()}),
        (ConvolutionalConfig, {"width": 0}),
        (ResidualConfig, {"blocks": 0}),
    ],
)
def test_impossible_sizes(kind: type, sizes: dict) -> None:
    with pytest.raises(InputError, match="at least 1"):
        kind(**sizes)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (MlpConfig, {"head": "softmix"}),
        (MlpConfig, {"hidden_sizes": (3, 2.5)}),
        (ConvolutionalConfig, {"discriminator_norm": "spectral_norm"}),
        (ConvolutionalConfig, {"generator_norm": "layer"}),
        (ResidualConfig, {"head": "sigmoid "}),
    ],
)
def test_names_and_numbers_that_are_none(kind: type, fields: dict) -> None:
    (name,) = fields
    with pytest.raises(InputError, match=f"{name} must be "):
        kind(**fields)


def test_a_way_of_telling_classes_that_there_is_not() -> None:
    with pytest.raises(InputError, match="conditioning must be 'concatenation' or 'projection'"):
        Discriminator(MlpConfig(), (5,), 3, "Projection")  # type: ignore[arg-type]


def test_batch_norm_needs_more_than_one_number() -> None:
    config = ConvolutionalConfig(width=4)
    generator = Generator(config, (1, 1, 1))
    assert generator(generator.noise(2)).shape == (2, 1, 1, 1)
    assert generator.eval()(generator.noise(1)).shape == (1, 1, 1, 1)
    with pytest.raises(InputError, match="take a larger batch"):
        generator.train()(generator.noise(1))


def test_networks_that_cannot_read_such_samples() -> None:
    with pytest.raises(InputError, match=r"got samples of shape \(7,\)"):
        Generator(ConvolutionalConfig(), (7,))
    with pytest.raises(InputError, match="3 x 300 x 256 numbers are too many"):
        Generator(MlpConfig(), (3, 300, 256))
    with pytest.raises(InputError, match="multiple of group_size"):
        ResidualConfig(width=5)


def test_discriminator_gives_logits_and_the_sigmoid_is_applied_once() -> None:
    # The example applied a sigmoid in the network and another in the loss.
    discriminator = Discriminator(MlpConfig(), (1, 28, 28))
    with torch.no_grad():
        for weight in discriminator.parameters():
            weight.mul_(20)
    images = torch.rand(50, 1, 28, 28)
    logits = discriminator(images)
    assert logits.min() < 0 or logits.max() > 1
    assert torch.equal(discriminator.predict_proba(images), logits.sigmoid())


def test_one_discriminator_judges_all_samples() -> None:
    # The example built its discriminator anew for each call, or failed to.
    discriminator = Discriminator(MlpConfig(), (1, 4, 4))
    before = [id(weight) for weight in discriminator.parameters()]
    images = torch.rand(6, 1, 4, 4)
    both = torch.cat((discriminator(images[:2]), discriminator(images[2:])))
    torch.testing.assert_close(both, discriminator(images))
    assert [id(weight) for weight in discriminator.parameters()] == before


def test_sampling_layer_draws_from_the_softmax() -> None:
    torch.manual_seed(0)
    generator = Generator(MlpConfig(head="softmax"), (4, 3))
    values = torch.randn(4, 3)[None].expand(20_000, -1, -1).clone().requires_grad_()
    head = generator.head
    drawn = head(values, torch.randn(20_000, 12))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert bool((drawn.sum(1) == 1).all())
    torch.testing.assert_close(drawn.mean(0), values[0].softmax(0), atol=0.015, rtol=0)
    # Straight through: a draw has the gradient of the softmax.
    (gradient,) = torch.autograd.grad(drawn[:, 0].sum(), values)
    assert bool((gradient[:, 0, :] > 0).any())
    some = drawn[:5].detach()
    expected = (values[:5].log_softmax(1) * some).sum((1, 2))
    torch.testing.assert_close(head.log_probability(values[:5], some), expected)


def test_a_low_temperature_sharpens_the_gradient() -> None:
    torch.manual_seed(0)
    head = Generator(MlpConfig(head="softmax"), (4, 3)).head
    values, noise = torch.randn(50, 4, 3, requires_grad=True), torch.randn(50, 12)
    sizes = []
    for temperature in (1.0, 0.01):
        head.temperature = temperature
        (gradient,) = torch.autograd.grad(head(values, noise)[:, 0].sum(), values)
        sizes.append((gradient.abs() > 1e-6).float().mean().item())
    assert sizes[1] < 0.5 * sizes[0]


def test_signals_are_shifted_by_the_draws_of_a_step() -> None:
    config = ConvolutionalConfig(width=4, phase_shuffle=2)
    network = Discriminator(config, (1, 256))
    signal = torch.randn(3, 1, 256)
    said = [tuple(network(signal, draws=Draws(0, step, 3)).tolist()) for step in (1, 2, 3, 1)]
    assert said[3] == said[0]
    assert len(set(said)) == 3
    assert torch.equal(network(signal), network(signal))
    assert "body.3.weight" in network.state_dict(), "older checkpoints would not be found again"

    ramps = torch.arange(9.0).view(1, 1, 9).expand(100, 2, 9)
    shifted = PhaseShuffle(2)(ramps, Draws(0, 1, batch=100))
    assert torch.equal(shifted[:, 0], shifted[:, 1])
    assert torch.equal(shifted[50:], PhaseShuffle(2)(ramps[50:], Draws(0, 1, 100, slice(50, 100))))
    seen = {tuple(ramp.tolist()) for ramp in shifted[:, 0]}
    assert (2, 1, 0, 1, 2, 3, 4, 5, 6) in seen  # two later, with a mirror at the border
    assert (2, 3, 4, 5, 6, 7, 8, 7, 6) in seen
    assert len(seen) == 5
