"""Complete configurations of adversarial training.

Settings are the papers' own where they hold for small networks on a CPU, else what worked best
here (docs/log.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeAlias

from fusewire.config import require_like
from fusewire.errors import InputError
from fusewire.models.gan import (
    ConvolutionalConfig,
    GanModel,
    HeadKind,
    LossName,
    MlpConfig,
    Penalty,
    ResidualConfig,
)
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import DataConfig, DataKind

ModelKind: TypeAlias = Literal["mlp", "convolutional", "residual"]

_R1 = Penalty("real", weight=0.3)
_POINTS: tuple[DataKind, ...] = ("vectors", "ring8", "grid25")


def default(
    data: DataConfig,
    model: ModelKind | None = None,
    loss: LossName | None = None,
    weight_clip: float | None = None,
) -> GanConfig:
    """The settings that suit some data, with networks and a loss of one's choice.

    Args:
        data: what to learn from.
        model: kind of networks; by default dense ones, and convolutions for sound.
        loss: what both networks minimise; by default the relativistic one for images, else what
            suits the networks.
        weight_clip: largest absolute weight of the discriminator, see `with_clipped_weights`.

    Returns:
        The run.

    Raises:
        InputError: the networks do not read such data, or there are none of this name.
    """
    require_like(ModelKind | None, model=model)
    require_like(LossName | None, loss=loss)
    model = model or ("convolutional" if data.kind == "audio" else "mlp")
    if model != "mlp" and data.kind in _POINTS:
        raise InputError(f"model {model} reads images and signals; for {data.kind} take mlp")
    config = _RECIPES[model](data)
    if loss is None and data.kind == "images":
        loss = "relativistic"
    if loss is not None:
        config = with_loss(config, loss)
    return config if weight_clip is None else with_clipped_weights(config, weight_clip)


def demo(seed: int = 0) -> GanConfig:
    """The embedded pictures of clothes, in well under a minute on two cores."""
    return dataclasses.replace(mlp(DataConfig()), steps=6_000, seed=seed)


def mlp(data: DataConfig) -> GanConfig:
    """The mission's dense networks with the non-saturating loss and R1; wider for points."""
    if data.kind in _POINTS:
        # Few numbers of noise: two dimensions of data fold a space of many into bridges.
        model = MlpConfig(noise_size=4, hidden_sizes=(128, 128, 128), head="identity")
        # Rates that shrink to nothing: steps of full size throw points past the narrow modes.
        config = GanConfig(data=data, model=model, steps=10_000, batch=256, last_rate=0.0)
        return with_loss(dataclasses.replace(config, average_decay=0.999), "relativistic")
    return GanConfig(data=data, model=MlpConfig(head=_head(data, "sigmoid")), penalties=(_R1,))


def convolutional(data: DataConfig) -> GanConfig:
    """DCGAN for images, WaveGAN for sound, the same in one dimension for words."""
    if data.kind == "images":
        return with_loss(GanConfig(data=data, model=ConvolutionalConfig()), "non_saturating")
    head = _head(data, "tanh")
    if data.kind == "audio":
        model = ConvolutionalConfig(width=16, head=head, generator_norm="none", phase_shuffle=2)
        return with_loss(GanConfig(data=data, model=model, batch=32), "relativistic")
    model = ConvolutionalConfig(head=head, generator_norm="none")
    return with_loss(GanConfig(data=data, model=model), "wasserstein")


def residual(data: DataConfig) -> GanConfig:
    """R3GAN's kind of networks with its loss."""
    model = ResidualConfig(head=_head(data, "tanh"))
    return with_loss(GanConfig(data=data, model=model, batch=32), "relativistic")


def with_loss(config: GanConfig, loss: LossName) -> GanConfig:
    """Changes the loss, and what goes with it: norm, penalties, rates and the order of moves."""
    if not config.model.flat:
        chosen = _CONVOLUTION_SETTINGS[loss]
    else:
        chosen = (_POINT_SETTINGS if config.data.kind in _POINTS else _DENSE_SETTINGS)[loss]
    model: GanModel = config.model
    if isinstance(model, ConvolutionalConfig):
        norm = chosen.discriminator_norm
        model = dataclasses.replace(model, discriminator_norm=norm)
    return dataclasses.replace(
        config,
        loss=loss,
        model=model,
        penalties=chosen.penalties,
        discriminator_steps=chosen.discriminator_steps,
        generator_learning_rate=chosen.generator_learning_rate,
        discriminator_learning_rate=chosen.discriminator_learning_rate,
        betas=chosen.betas,
    )


def with_clipped_weights(config: GanConfig, largest: float) -> GanConfig:
    """Clips the discriminator's weights (Arjovsky et al. 2017) in the place of WGAN-GP's penalty.

    Both hold its slope; the penalty at 1, where clipped weights do not let it come.

    Args:
        config: the run.
        largest: absolute weight.

    Raises:
        InputError: it is no such number, or the weights have spectral norm.
    """
    kept = tuple(penalty for penalty in config.penalties if penalty.at != "between")
    return dataclasses.replace(config, weight_clip=largest, penalties=kept)


@dataclasses.dataclass(frozen=True)
class _LossSettings:
    generator_learning_rate: float = 2e-4
    discriminator_learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    penalties: tuple[Penalty, ...] = ()
    discriminator_steps: int = 1
    discriminator_norm: Literal["none", "batch", "spectral"] = "none"


_WASSERSTEIN = _LossSettings(
    generator_learning_rate=1e-4,
    discriminator_learning_rate=1e-4,
    betas=(0.5, 0.9),
    penalties=(Penalty("between", 10.0),),
    discriminator_steps=5,
)

_CONVOLUTION_SETTINGS: dict[str, _LossSettings] = {
    "minimax": _LossSettings(discriminator_norm="batch"),
    "non_saturating": _LossSettings(discriminator_norm="batch"),
    "least_squares": _LossSettings(discriminator_norm="batch"),
    "hinge": _LossSettings(
        betas=(0.0, 0.9), discriminator_learning_rate=4e-4, discriminator_norm="spectral"
    ),
    "wasserstein": _WASSERSTEIN,
    "relativistic": _LossSettings(
        generator_learning_rate=1e-3,
        discriminator_learning_rate=1e-3,
        betas=(0.0, 0.99),
        penalties=(Penalty("real", 1.0), Penalty("fake", 1.0)),
    ),
}

_DENSE = _LossSettings(
    generator_learning_rate=1e-3,
    discriminator_learning_rate=2e-3,
    betas=(0.0, 0.99),
    penalties=(_R1,),
)

_DENSE_SETTINGS: dict[str, _LossSettings] = {
    "minimax": _DENSE,
    "non_saturating": _DENSE,
    "least_squares": _DENSE,
    "hinge": _DENSE,
    "wasserstein": _WASSERSTEIN,
    "relativistic": dataclasses.replace(
        _DENSE, penalties=(Penalty("real", 0.1), Penalty("fake", 0.1))
    ),
}

# The plain games show what becomes of them.
_PLAIN = dataclasses.replace(_DENSE, penalties=())

_POINT_SETTINGS: dict[str, _LossSettings] = {
    "minimax": _PLAIN,
    "non_saturating": _PLAIN,
    "least_squares": _PLAIN,
    "hinge": _PLAIN,
    # The rates of its authors, 1e-4, find no mode in as many steps.
    "wasserstein": dataclasses.replace(
        _WASSERSTEIN,
        penalties=(Penalty("between", 0.1),),
        generator_learning_rate=1e-3,
        discriminator_learning_rate=1e-3,
        betas=(0.0, 0.99),
    ),
    "relativistic": dataclasses.replace(
        _DENSE, penalties=(Penalty("real", 0.5), Penalty("fake", 0.5))
    ),
}

_RECIPES: dict[ModelKind, Callable[[DataConfig], GanConfig]] = {
    "mlp": mlp,
    "convolutional": convolutional,
    "residual": residual,
}


def _head(data: DataConfig, for_pixels: HeadKind) -> HeadKind:
    heads: dict[DataKind, HeadKind] = {"images": for_pixels, "audio": "tanh", "words": "softmax"}
    return heads.get(data.kind, "identity")
