"""Every recipe is a run that can be built, with what its loss needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fusewire.errors import InputError
from fusewire.models.gan import ConvolutionalConfig, MlpConfig, ResidualConfig
from fusewire.recipes import gan
from fusewire.training.adversarial.data import DataConfig

IMAGES = DataConfig("images", Path("images.npz"))


def test_the_demo_is_the_mission() -> None:
    config = gan.demo(seed=3)
    assert config.model == MlpConfig(hidden_sizes=(128, 128), head="sigmoid")
    assert (config.loss, config.seed) == ("non_saturating", 3)


def test_losses_bring_what_they_need() -> None:
    hinge = gan.default(IMAGES, "convolutional", "hinge")
    assert isinstance(hinge.model, ConvolutionalConfig)
    assert hinge.model.spectral
    wasserstein = gan.default(IMAGES, "convolutional", "wasserstein")
    assert [penalty.at for penalty in wasserstein.penalties] == ["between"]
    assert wasserstein.discriminator_steps == 5
    residual = gan.default(IMAGES, "residual")
    assert isinstance(residual.model, ResidualConfig)
    assert residual.loss == "relativistic"
    assert [penalty.at for penalty in residual.penalties] == ["real", "fake"]


def test_clipped_weights_take_the_place_of_the_penalty() -> None:
    penalised = gan.default(IMAGES, "mlp", "wasserstein")
    clipped = gan.default(IMAGES, "mlp", "wasserstein", weight_clip=0.1)
    assert clipped == dataclasses.replace(penalised, penalties=(), weight_clip=0.1)
    kept = gan.default(IMAGES, "mlp", "hinge", weight_clip=0.1)
    assert [penalty.at for penalty in kept.penalties] == ["real"]
    with pytest.raises(InputError, match="weight_clip does nothing"):
        gan.default(IMAGES, "convolutional", "hinge", weight_clip=0.1)


@pytest.mark.parametrize("names", [{"model": "dense"}, {"loss": "lsgan"}])
def test_names_that_are_none(names: dict) -> None:
    (name,) = names
    with pytest.raises(InputError, match=f"{name} must be '"):
        gan.default(IMAGES, **names)


@pytest.mark.parametrize("kind", ["images", "audio", "words", "ring8"])
def test_heads_fit_the_data(kind: str) -> None:
    data = DataConfig(kind, Path("somewhere"))
    heads = {"images": "sigmoid", "audio": "tanh", "words": "softmax", "ring8": "identity"}
    assert gan.default(data).model.head == heads[kind]


def test_networks_that_do_not_read_points() -> None:
    with pytest.raises(InputError, match="for ring8 take mlp"):
        gan.default(DataConfig("ring8"), "residual")


@pytest.mark.parametrize("model", ["mlp", "convolutional", "residual"])
def test_images_get_the_relativistic_loss_with_both_penalties(model: gan.ModelKind) -> None:
    config = gan.default(IMAGES, model)
    assert config.loss == "relativistic"
    assert [penalty.at for penalty in config.penalties] == ["real", "fake"]
    assert gan.default(IMAGES, model, "hinge").loss == "hinge"
