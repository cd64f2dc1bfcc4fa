"""Losses and penalties against their definitions, and the faults of the example code in them."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from fusewire.errors import InputError
from fusewire.models.gan import (
    EVERYWHERE,
    Critic,
    Draws,
    Judged,
    Penalty,
    augment,
    make_loss,
    slopes_of,
)

LOGITS = torch.linspace(-30, 30, 9, dtype=torch.float64)
NAMES = ["minimax", "non_saturating", "least_squares", "hinge", "wasserstein", "relativistic"]


@pytest.mark.parametrize("target", [1.0, 0.9, 0.0])
def test_discriminator_loss_is_the_cross_entropy(target: float) -> None:
    real, fake = LOGITS, LOGITS.flip(0)
    expected = cross_entropy(real, torch.full_like(real, target))
    expected = expected + cross_entropy(fake, torch.zeros_like(fake))
    for name in ("minimax", "non_saturating"):
        torch.testing.assert_close(make_loss(name, target).discriminator(real, fake), expected)


@pytest.mark.parametrize("name", NAMES)
def test_generator_wants_its_samples_called_real(name: str) -> None:
    # The example trained the generator towards zeros: to be caught.
    logits = torch.zeros(3, requires_grad=True)
    make_loss(name).generator(logits, torch.zeros(3)).backward()
    assert logits.grad is not None
    assert bool((logits.grad < 0).all()), "a higher logit must lower the loss"


@pytest.mark.parametrize("name", NAMES)
def test_discriminator_wants_to_tell_them_apart(name: str) -> None:
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    make_loss(name).discriminator(real, fake).backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert bool((real.grad < 0).all())
    assert bool((fake.grad >= 0).all())


def test_generator_loss_is_the_cross_entropy_to_ones() -> None:
    expected = cross_entropy(LOGITS, torch.ones_like(LOGITS))
    torch.testing.assert_close(make_loss("non_saturating").generator(LOGITS), expected)


def test_minimax_vanishes_where_non_saturating_does_not() -> None:
    caught = torch.full((1,), -20.0, requires_grad=True)
    (weak,) = torch.autograd.grad(make_loss("minimax").generator(caught), caught)
    (strong,) = torch.autograd.grad(make_loss("non_saturating").generator(caught), caught)
    assert abs(weak.item()) < 1e-8
    assert strong.item() == pytest.approx(-1)
    both = make_loss("minimax").generator(LOGITS) + cross_entropy(LOGITS, torch.zeros_like(LOGITS))
    torch.testing.assert_close(both, torch.zeros_like(both))


def test_the_others_are_what_their_papers_say() -> None:
    real, fake = torch.tensor([2.0, -0.5]), torch.tensor([-3.0, 0.5])

    def values(name: str) -> list[float]:
        loss = make_loss(name)
        return [loss.discriminator(real, fake).item(), loss.generator(fake, real).item()]

    assert values("least_squares") == pytest.approx([(1.625 + 4.625) / 2, (16 + 0.25) / 4])
    assert values("hinge") == pytest.approx([(0 + 1.5) / 2 + (0 + 1.5) / 2, 1.25])
    assert values("wasserstein") == pytest.approx([-1.25 - 0.75, 1.25])
    apart = real - fake
    assert values("relativistic") == pytest.approx(
        [-apart.sigmoid().log().mean().item(), -(-apart).sigmoid().log().mean().item()]
    )
    with pytest.raises(ValueError, match="logits of real samples too"):
        make_loss("relativistic").generator(fake)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_finite_however_sure_the_discriminator_is(name: str) -> None:
    extreme = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = make_loss(name)
    total = loss.discriminator(extreme, extreme.flip(0)) + loss.generator(extreme, extreme.flip(0))
    total.backward()
    assert bool(total.isfinite())
    assert extreme.grad is not None
    assert bool(extreme.grad.isfinite().all())


@pytest.mark.parametrize(("name", "shape"), [*itertools.product(NAMES, [(5, 1), (5, 5), (), (4,)])])
def test_logits_of_another_shape_do_not_broadcast(name: str, shape: tuple[int, ...]) -> None:
    # Labels (batch,) against logits (batch, 1) broadcast to batch x batch in the example's loss.
    wrong, right, loss = torch.zeros(shape), torch.zeros(5), make_loss(name)
    for pair in ((wrong, right), (right, wrong)):
        with pytest.raises(ValueError, match="logit"):
            loss.discriminator(*pair)
    if shape != (4,):
        with pytest.raises(ValueError, match="one logit per sample"):
            loss.generator(wrong, wrong)


def critic_of(weight: torch.Tensor) -> Critic:
    def judge(samples: torch.Tensor, sloping: slice) -> Judged:
        logits = samples.requires_grad_() @ weight
        return Judged(samples, logits, slopes_of(logits, samples)[sloping])

    return judge


def seen(*samples: torch.Tensor, weight: torch.Tensor) -> dict[str, Judged]:
    critic = critic_of(weight)
    return {
        at: critic(each, EVERYWHERE) for at, each in zip(("real", "fake"), samples, strict=True)
    }


def test_penalties_of_a_linear_discriminator() -> None:
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    real, fake = torch.rand(6, 2), torch.rand(6, 2)

    def term(penalty: Penalty) -> torch.Tensor:
        values = seen(real.clone(), fake.clone(), weight=weight)
        return penalty.term(critic_of(weight), values, Draws(0, 0, batch=6))

    # The gradient is the weight everywhere, and 5 long.
    for at in ("real", "fake"):
        penalty = term(Penalty(at, 1.0))
        assert penalty.item() == pytest.approx(12.5)
        (gradient,) = torch.autograd.grad(penalty, weight)
        torch.testing.assert_close(gradient, weight.detach())
    assert term(Penalty("between", 10.0)).item() == pytest.approx(160)
    assert term(Penalty("real", 0.5, every=4)).item() == pytest.approx(25)


def test_finite_difference_estimates_the_same() -> None:
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    values = seen(torch.rand(40_000, 2), torch.rand(40_000, 2), weight=weight)
    penalty = Penalty("fake", 1.0, finite_difference=0.01)
    term = penalty.term(critic_of(weight), values, Draws(0, 0, batch=40_000))
    assert term.item() == pytest.approx(12.5, rel=0.05)
    assert not penalty.differentiates("fake")


def test_lazy_penalties_are_due_in_one_of_many_steps() -> None:
    assert [Penalty("real", 1.0, every=3).is_due(step) for step in range(4)] == [
        True,
        *[False] * 2,
        True,
    ]
    assert not Penalty("real", 0.0).is_due(0)


@pytest.mark.parametrize(
    "fields",
    [
        {"at": "real", "weight": -1.0},
        {"at": "real", "weight": float("nan")},
        {"at": "real", "weight": 1.0, "every": 0},
        {"at": "real", "weight": 1.0, "finite_difference": 0.0},
        {"at": "between", "weight": 1.0, "finite_difference": 0.1},
        {"at": "Real", "weight": 1.0},
        {"at": "real", "weight": 1.0, "every": 1.5},
    ],
)
def test_impossible_penalties(fields: dict) -> None:
    with pytest.raises(InputError):
        Penalty(**fields)


def test_a_loss_that_there_is_not() -> None:
    with pytest.raises(InputError, match=r"loss must be 'minimax', .* or 'relativistic', got 'r3'"):
        make_loss("r3")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["brightness", "contrast", "translation", "cutout"])
def test_augmentations_change_and_let_gradients_through(kind: str) -> None:
    images = torch.rand(5, 3, 12, 9, requires_grad=True)
    changed = augment(images, [kind], Draws(1, 2, batch=5))
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)
    assert torch.equal(changed, augment(images, [kind], Draws(1, 2, batch=5)))
    changed.sum().backward()
    assert images.grad is not None
    assert bool((images.grad != 0).any())
    assert torch.equal(augment(images, [], Draws(1, 2, batch=5)), images)


def test_rows_of_draws_do_not_depend_on_who_draws_them() -> None:
    whole = Draws(3, 4, batch=6)
    parts = [Draws(3, 4, batch=6, rows=slice(first, first + 3)) for first in (0, 3)]
    for name, arguments in (("normal", (2,)), ("uniform", (1, 2)), ("integers", (9,))):
        drawn = [getattr(part, name)(*arguments) for part in parts]
        assert torch.equal(torch.cat(drawn), getattr(whole, name)(*arguments))
    assert not torch.equal(Draws(3, 4, 6).normal(2), Draws(3, 5, 6).normal(2))
