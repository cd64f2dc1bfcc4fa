"""Everything that decides a run of adversarial training, checked when it is put together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from fusewire.config import require_declared
from fusewire.errors import InputError
from fusewire.models.gan import (
    SMOOTHED,
    AugmentationKind,
    Conditioning,
    ConvolutionalConfig,
    GanModel,
    LossName,
    MlpConfig,
    Penalty,
)
from fusewire.training.adversarial.data import DataConfig
from fusewire.training.settings import (
    require_batch,
    require_between,
    require_counts,
    require_positive,
    require_seed,
)

Estimator: TypeAlias = Literal["gumbel", "reinforce"]


@dataclass(frozen=True)
class GanConfig:
    """Everything that decides what a run of adversarial training does.

    Attributes:
        data: where samples come from.
        model: kind and sizes of both networks.
        steps: each is one update of the generator.
        batch: real samples per update, and as many generated ones, over all processes.
        generator_learning_rate: of Adam.
        discriminator_learning_rate: of Adam.
        betas: of Adam, for both.
        last_rate: both learning rates once the last step is done, as a part of those of the first;
            each step's are less by an equal amount, so that the last one's lie so much above it.
        loss: what both minimise.
        real_target: what the discriminator should say of real samples, for the losses "minimax"
            and "non_saturating"; below 1 smooths.
        penalties: on the discriminator's gradient.
        weight_clip: largest absolute weight of the discriminator, None for any.
        discriminator_steps: updates of the discriminator for each of the generator.
        augmentations: changes to what the discriminator sees.
        conditioning: how both networks are told the class; None for no classes.
        estimator: for discrete data, how the generator learns through a draw.
        temperature: of "gumbel", before the first step and at the last one.
        average_decay: of the running mean of the generator's weights, from which samples are drawn.
        seed: of weights, noise and order of the data.
        device: where to train, such as "cpu" or "cuda".
        threads: CPU threads of PyTorch while training; None takes as many as samples of this size
            keep busy.
        tensorboard: write the log for TensorBoard too.
        log_every: steps between lines of the log.
        checkpoint_every: steps between checkpoints and pictures of samples.
        frames: keep the picture of every checkpoint, for a film of the training.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: GanModel = field(default_factory=MlpConfig)
    steps: int = 20_000
    batch: int = 64
    generator_learning_rate: float = 1e-3
    discriminator_learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.0, 0.99)
    last_rate: float = 1.0
    loss: LossName = "non_saturating"
    real_target: float = 1.0
    penalties: tuple[Penalty, ...] = ()
    weight_clip: float | None = None
    discriminator_steps: int = 1
    augmentations: tuple[AugmentationKind, ...] = ()
    conditioning: Conditioning | None = None
    estimator: Estimator = "gumbel"
    temperature: tuple[float, float] = (1.0, 0.3)
    average_decay: float = 0.9995
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    tensorboard: bool = False
    log_every: int = 10
    checkpoint_every: int = 1_000
    frames: bool = False

    def __post_init__(self) -> None:
        require_declared(self)
        require_batch(batch=self.batch)
        require_counts(
            steps=self.steps,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
            discriminator_steps=self.discriminator_steps,
        )
        require_positive(
            generator_learning_rate=self.generator_learning_rate,
            discriminator_learning_rate=self.discriminator_learning_rate,
        )
        for temperature in self.temperature:
            require_positive(temperature=temperature)
        require_between(
            0,
            1,
            real_target=self.real_target,
            average_decay=self.average_decay,
            last_rate=self.last_rate,
        )
        if self.real_target != 1 and self.loss not in SMOOTHED:
            raise InputError(
                f"real_target is for the losses {' and '.join(SMOOTHED)}, and {self.loss} has none"
            )
        if self.weight_clip is not None:
            require_positive(weight_clip=self.weight_clip)
            if self.model.spectral:
                raise InputError(
                    "weight_clip does nothing to weights that spectral norm divides by their "
                    "size; leave out one of them"
                )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas must be at least 0 and below 1, got {self.betas}")
        require_seed(self.seed)
        if self.threads is not None:
            require_counts(threads=self.threads)
        if self.estimator == "reinforce" and self.model.head != "softmax":
            raise InputError(
                f'estimator "reinforce" is for the head softmax, not {self.model.head}'
            )
        if (
            isinstance(self.model, ConvolutionalConfig)
            and self.model.discriminator_norm == "batch"
            and self.penalties
        ):
            raise InputError(
                "penalties want each sample's own gradient, and batch norm in the discriminator "
                'mixes them; set discriminator_norm to "none" or "spectral"'
            )

    def rate_at(self, step: int) -> float:
        """What both learning rates are multiplied with at a step, counted from 1.

        :math:`1 + (l - 1) (s - 1) / S` with the step s of S, and l the last rate.
        """
        return 1 + (self.last_rate - 1) * (step - 1) / self.steps

    def temperature_at(self, step: int) -> float:
        """The temperature at a step, counted from 1: by equal factors from step to step."""
        first, last = self.temperature
        return first * math.pow(last / first, step / self.steps)
