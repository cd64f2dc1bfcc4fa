"""Configurations of adversarial training that are refused."""

from __future__ import annotations

import pytest

from fusewire.errors import InputError
from fusewire.models.gan import MlpConfig
from fusewire.training.adversarial.config import GanConfig


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"batch": 0},
        {"generator_learning_rate": float("nan")},
        {"betas": (1.0, 0.9)},
        {"weight_clip": -1.0},
        {"discriminator_steps": 0},
        {"temperature": (1.0, 0.0)},
        {"average_decay": 1.5},
        {"seed": -1},
        {"threads": 0},
        {"steps": 2.5},
        {"loss": "lsgan"},
        {"conditioning": "Projection"},
        {"augmentations": ("flip",)},
        {"augmentations": "cutout"},
        {"estimator": "score"},
        {"betas": (0.5,)},
    ],
)
def test_impossible_settings(changes: dict) -> None:
    with pytest.raises(InputError, match="must be"):
        GanConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": "hinge", "real_target": 0.9},
            "real_target is for the losses minimax and non_sat",
        ),
        ({"model": MlpConfig(spectral=True), "weight_clip": 0.1}, "weight_clip does nothing to"),
    ],
)
def test_settings_without_effect(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GanConfig(**changes)
    for name in changes:
        GanConfig(**{name: changes[name]})
