"""Adversarial networks: a generator learns to make what a discriminator takes for real."""

from typing import TypeAlias

from fusewire.models.gan.augmentation import AugmentationKind, augment
from fusewire.models.gan.convolutional import ConvolutionalConfig
from fusewire.models.gan.draws import Draws
from fusewire.models.gan.heads import HeadKind, SoftmaxSampling
from fusewire.models.gan.judging import EVERYWHERE, NOWHERE, Critic, Judge, Judged, slopes_of
from fusewire.models.gan.losses import SMOOTHED, Loss, LossName, make_loss
from fusewire.models.gan.mlp import MlpConfig
from fusewire.models.gan.networks import Conditioning, Discriminator, Generator
from fusewire.models.gan.normalisation import BatchNorm
from fusewire.models.gan.penalties import Penalty
from fusewire.models.gan.residual import ResidualConfig

GanModel: TypeAlias = MlpConfig | ConvolutionalConfig | ResidualConfig

__all__ = [
    "EVERYWHERE",
    "NOWHERE",
    "SMOOTHED",
    "AugmentationKind",
    "BatchNorm",
    "Conditioning",
    "ConvolutionalConfig",
    "Critic",
    "Discriminator",
    "Draws",
    "GanModel",
    "Generator",
    "HeadKind",
    "Judge",
    "Judged",
    "Loss",
    "LossName",
    "MlpConfig",
    "Penalty",
    "ResidualConfig",
    "SoftmaxSampling",
    "augment",
    "make_loss",
    "slopes_of",
]
