"""One move of the discriminator: what it computes at once, and what it leaves out."""

from __future__ import annotations

import pytest
import torch

from fusewire.models.gan import Draws, LossName, MlpConfig, Penalty
from fusewire.training.adversarial import moves
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import SampleFormat
from fusewire.training.adversarial.moves import discriminator_move
from fusewire.training.adversarial.players import Players
from fusewire.training.processes import Processes

BOTH = (Penalty("real", 0.3), Penalty("fake", 0.2))


def gradients(config: GanConfig, *, together: bool) -> list[torch.Tensor]:
    """Of the discriminator's weights, behind its loss and the logits of real samples."""
    torch.manual_seed(0)
    form = SampleFormat("images", (3, 4, 5), classes=3)
    players = Players(config, form, Processes("cpu"))
    labels = None if config.conditioning is None else torch.tensor([0, 2, 1, 1])
    calls = []
    players.discriminator.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
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
        ("hinge", ()),
        ("non_saturating", (Penalty("real", 1.0, finite_difference=0.1),)),
    ],
)
def test_judging_together_is_judging_apart(
    loss: LossName,
    penalties: tuple[Penalty, ...],
    conditioning: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = GanConfig(
        model=MlpConfig(noise_size=6, hidden_sizes=(8, 8)),
        loss=loss,
        penalties=penalties,
        conditioning=conditioning,
        batch=4,
    )
    together = gradients(config, together=True)
    monkeypatch.setattr(moves, "_judges_together", lambda *_: False)
    apart = gradients(config, together=False)
    assert len(together) == 8 + (conditioning == "projection")
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other)


def test_slopes_of_one_kind_are_not_computed_for_both() -> None:
    config = GanConfig(
        model=MlpConfig(noise_size=6, hidden_sizes=(8, 8)), penalties=BOTH[:1], batch=4
    )
    gradients(config, together=False)
