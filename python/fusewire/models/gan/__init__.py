"""Adversarial networks: a generator learns to make what a discriminator takes for real."""

from fusewire.models.gan.losses import (
    GeneratorLoss,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)
from fusewire.models.gan.mlp import Discriminator, Generator, MlpConfig

__all__ = [
    "Discriminator",
    "Generator",
    "GeneratorLoss",
    "MlpConfig",
    "discriminator_loss",
    "generator_loss",
    "gradient_penalty",
]
