"""Everything that decides a run of adversarial training, checked when it is put together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from fusewire.errors import InputError
from fusewire.models.gan import GeneratorLoss, MlpConfig
from fusewire.training.settings import (
    require_batch,
    require_between,
    require_counts,
    require_positive,
    require_seed,
)


@dataclass(frozen=True)
class GanConfig:
    """Everything that decides what a run of adversarial training does.

    Attributes:
        data: what `fusewire.data.images.load_images` reads.
        model: sizes of both networks; the image shape is that of the data.
        steps: each is one update of the discriminator and one of the generator.
        batch_size: real images per step, and as many generated ones.
        generator_learning_rate: of Adam.
        discriminator_learning_rate: of Adam.
        betas: of Adam, for both.
        loss: what the generator minimises.
        real_target: what the discriminator should say of real images; below 1 smooths.
        penalty: weight of the squared gradient at real images, 0 for none.
        average_decay: of the running mean of the generator's weights, from which samples are drawn.
        seed: of weights, noise and order of the data.
        device: where to train, such as "cpu" or "cuda".
        threads: CPU threads of PyTorch while training; None leaves them as they are.
        log_every: steps between lines of the log.
        checkpoint_every: steps between checkpoints and sample grids.
    """

    data: Path
    model: MlpConfig
    steps: int = 20_000
    batch_size: int = 64
    generator_learning_rate: float = 1e-3
    discriminator_learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.0, 0.99)
    loss: GeneratorLoss = "non_saturating"
    real_target: float = 1.0
    penalty: float = 0.3
    average_decay: float = 0.9995
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    log_every: int = 10
    checkpoint_every: int = 1_000

    def __post_init__(self) -> None:
        require_batch(batch_size=self.batch_size)
        require_counts(steps=self.steps)
        require_counts(log_every=self.log_every, checkpoint_every=self.checkpoint_every)
        require_positive(
            generator_learning_rate=self.generator_learning_rate,
            discriminator_learning_rate=self.discriminator_learning_rate,
        )
        require_between(0, 1, real_target=self.real_target, average_decay=self.average_decay)
        require_between(0, math.inf, penalty=self.penalty)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas must be at least 0 and below 1, got {self.betas}")
        require_seed(self.seed)
        if self.threads is not None:
            require_counts(threads=self.threads)
