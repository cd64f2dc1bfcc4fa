"""Networks of dense layers, for samples of any shape: the mission's own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from fusewire.config import require_declared
from fusewire.errors import InputError
from fusewire.models.gan.heads import HeadKind
from fusewire.models.gan.leaky import LeakyLayers
from fusewire.models.gan.networks import Shape
from fusewire.models.gan.rectified import RectifiedLayers

# Both networks, the running mean and the optimisers hold about 3.6 kB for each number of a sample.
_LARGEST_SAMPLE = 3 * 256 * 256


@dataclass(frozen=True)
class MlpConfig:
    """Dense networks: `head(W3 relu(W2 relu(W1 z + b1) + b2) + b3)` and the like for logits.

    The discriminator's activation is a leaky ReLU, because a generator learns nothing through units
    that are off.

    Attributes:
        noise_size: numbers from which the generator makes one sample.
        hidden_sizes: widths of the hidden layers, the same in both networks.
        head: what the last layer's values go through.
        spectral: divide the discriminator's weights by their largest singular value.
    """

    noise_size: int = 32
    hidden_sizes: tuple[int, ...] = (128, 128)
    head: HeadKind = "sigmoid"
    spectral: bool = False

    flat = True

    def __post_init__(self) -> None:
        require_declared(self)
        if not self.hidden_sizes or not all(size >= 1 for size in self.hidden_sizes):
            raise InputError(f"hidden_sizes: expected sizes of at least 1, got {self.hidden_sizes}")
        if self.noise_size < 1:
            raise InputError(f"noise_size: expected at least 1, got {self.noise_size}")

    def generator_body(self, inputs: int, shape: Shape) -> nn.Module:
        """Hidden layers with ReLU, and a last one without."""
        numbers = math.prod(shape)
        if numbers > _LARGEST_SAMPLE:
            raise InputError(
                f"samples of {' x '.join(map(str, shape))} numbers are too many for networks of "
                f"dense layers, which take {_LARGEST_SAMPLE}; scale them down"
            )
        return RectifiedLayers((inputs, *self.hidden_sizes, numbers))

    def discriminator_body(self, shape: Shape) -> tuple[nn.Module, int]:
        """Hidden layers with leaky ReLU."""
        return LeakyLayers((*shape, *self.hidden_sizes)), self.hidden_sizes[-1]
