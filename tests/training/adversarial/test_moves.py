"""One move of the discriminator: what it computes at once, and what it leaves out."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fusewire.models.gan import ConvolutionalConfig, Draws, LossName, MlpConfig, Penalty
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import SampleFormat
from fusewire.training.adversarial.moves import discriminator_move
from fusewire.training.adversarial.players import Players
from fusewire.training.processes import Processes

FORM = SampleFormat("images", (3, 4, 5), classes=3)
BOTH = (Penalty("real", 0.3), Penalty("fake", 0.2))


def gradients(config: GanConfig, *, together: bool) -> list[torch.Tensor]:
    """Of the discriminator's weights, behind its loss and the logits of real samples."""
    torch.manual_seed(0)
    players = Players(config, FORM, Processes("cpu"))
    labels = None if config.conditioning is None else torch.tensor([0, 2, 1, 1])
    players.judge.has_closed_form = together
    calls = []
    players.judge.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    found = discriminator_move(
        config, players, torch.rand(4, 3, 4, 5), labels, Draws(0, 1, batch=4), 0
    )
    assert calls[0] == (8 if together else 4)
    slopes = [weight.grad for weight in players.discriminator.parameters()]
    return [*found, *(slope for slope in slopes if slope is not None)]


@pytest.mark.parametrize("conditioning", [None, "concatenation", "projection"])
@pytest.mark.parametrize(
    ("loss", "penalties"),
    [
        ("relativistic", BOTH),
        ("non_saturating", BOTH[:1]),
        ("least_squares", BOTH[1:]),
        ("wasserstein", (Penalty("between", 10.0),)),
        ("hinge", ()),
        ("non_saturating", (Penalty("real", 1.0, finite_difference=0.1),)),
    ],
)
def test_judging_together_is_judging_apart(
    loss: LossName,
    penalties: tuple[Penalty, ...],
    conditioning: str | None,
) -> None:
    config = GanConfig(
        model=MlpConfig(noise_size=6, hidden_sizes=(8, 8)),
        loss=loss,
        penalties=penalties,
        conditioning=conditioning,
        batch=4,
    )
    together = gradients(config, together=True)
    apart = gradients(config, together=False)
    assert len(together) == 8 + (conditioning == "projection")
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("at", ["real", "fake", "between"])
def test_penalties_are_taken(at: str, together: bool) -> None:
    model = MlpConfig(noise_size=6, hidden_sizes=(8, 8))
    free = GanConfig(model=model, batch=4)
    held = dataclasses.replace(free, penalties=(Penalty(at, 1.0),))
    loss, logits, *slopes = gradients(held, together=together)
    expected_loss, expected_logits, *others = gradients(free, together=together)
    assert torch.equal(loss, expected_loss)
    assert torch.equal(logits, expected_logits)
    moved = [not torch.allclose(*pair) for pair in zip(slopes, others, strict=True)]
    # What a bias adds is the same at all samples that lie on one side of a unit's fold.
    assert moved == [True, False, True, False, True, False]


def test_nobody_asks_for_the_gradient_of_the_loss_at_samples() -> None:
    config = GanConfig(
        model=ConvolutionalConfig(noise_size=6, width=4), penalties=BOTH[:1], batch=4
    )
    players, real = Players(config, FORM, Processes("cpu")), torch.rand(4, 3, 4, 5)
    discriminator_move(config, players, real, None, Draws(0, 1, batch=4), 0)
    assert real.requires_grad
    assert real.grad is None
