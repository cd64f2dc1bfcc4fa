"""Strided convolutions: DCGAN for images, WaveGAN for signals, which is the same in one dimension.

Both halve (or quarter) the size from layer to layer while the channels double, and transposed
convolutions lead back. An odd kernel with `padding = kernel // 2` takes a size s to
ceil(s / stride) exactly, and the transposed one back to any s with that quotient, so that no size
is refused (Radford et al. 2016; Donahue et al. 2019).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

from fusewire.config import require_declared
from fusewire.errors import InputError
from fusewire.models.gan.heads import HeadKind
from fusewire.models.gan.ladder import convolution_for, ladder, strides
from fusewire.models.gan.networks import Shape
from fusewire.models.gan.normalisation import BatchNorm
from fusewire.models.gan.phase import PhaseShuffle, ShuffledLayers
from fusewire.nn import Linear

_LEAK = 0.2
_DCGAN_DEVIATION = 0.02

# Kernel, stride and smallest rung: the papers' own, for signals and for images.
_GEOMETRY = {2: (25, 4, 16), 3: (5, 2, 4)}


@dataclass(frozen=True)
class ConvolutionalConfig:
    """Strided convolutions, for images (channels, height, width) and signals (channels, length).

    Attributes:
        noise_size: numbers from which the generator makes one sample.
        width: channels next to the sample; they double from layer to layer.
        widest: most channels.
        head: what the last layer's values go through.
        generator_norm: "batch" between the generator's layers, or "none".
        discriminator_norm: "batch", "spectral" or "none" in the discriminator; penalties on
            single samples forbid "batch", which mixes them.
        phase_shuffle: most steps by which the discriminator's layers shift each signal at random
            while it learns.
    """

    noise_size: int = 64
    width: int = 32
    widest: int = 256
    head: HeadKind = "tanh"
    generator_norm: Literal["none", "batch"] = "batch"
    discriminator_norm: Literal["none", "batch", "spectral"] = "none"
    phase_shuffle: int = 0

    flat = False

    def __post_init__(self) -> None:
        require_declared(self)
        for name in ("noise_size", "width", "widest"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.phase_shuffle < 0:
            raise InputError(f"phase_shuffle: expected at least 0, got {self.phase_shuffle}")

    @property
    def spectral(self) -> bool:
        """Whether the discriminator's weights are divided by their largest singular value."""
        return self.discriminator_norm == "spectral"

    def generator_body(self, inputs: int, shape: Shape) -> nn.Module:
        """A dense layer to the smallest size, then transposed convolutions up."""
        convolution_for(shape)
        transposed = nn.ConvTranspose1d if len(shape) == 2 else nn.ConvTranspose2d
        kernel, stride, smallest = _GEOMETRY[len(shape)]
        sizes = ladder(shape[1:], stride, smallest)[::-1]
        channels = self._channels(len(sizes) - 1)[::-1]
        layers: list[nn.Module] = [
            Linear(inputs, channels[0] * math.prod(sizes[0])),
            nn.Unflatten(1, (channels[0], *sizes[0])),
        ]
        steps = itertools.pairwise(sizes)
        for (small, large), (before, after) in zip(
            steps, itertools.pairwise((*channels, shape[0])), strict=True
        ):
            layers += self._norm(before, self.generator_norm)
            step = strides(large, small, stride)
            # What the quotient has rounded away.
            missing = tuple(a - (b - 1) * s - 1 for a, b, s in zip(large, small, step, strict=True))
            layers += [
                nn.ReLU(),
                transposed(before, after, kernel, step, kernel // 2, missing),  # type: ignore[arg-type]
            ]
        return _initialised(nn.Sequential(*layers), self.generator_norm)

    def discriminator_body(self, shape: Shape) -> tuple[nn.Module, int]:
        """Convolutions down to the smallest size."""
        convolution = convolution_for(shape)
        kernel, stride, smallest = _GEOMETRY[len(shape)]
        sizes = ladder(shape[1:], stride, smallest)
        channels = self._channels(len(sizes) - 1)
        layers: list[nn.Module] = []
        steps = itertools.pairwise(sizes)
        for index, ((large, small), (before, after)) in enumerate(
            zip(steps, itertools.pairwise((shape[0], *channels)), strict=True)
        ):
            step = strides(large, small, stride)
            layers.append(convolution(before, after, kernel, step, kernel // 2))  # type: ignore[arg-type]
            # The first layer keeps the statistics of its samples, which tell real from generated.
            layers += self._norm(after, self.discriminator_norm) if index else []
            layers.append(nn.LeakyReLU(_LEAK))
            if self.phase_shuffle and len(shape) == 2 and small != sizes[-1]:
                layers.append(PhaseShuffle(self.phase_shuffle))
        chain = ShuffledLayers if self.phase_shuffle else nn.Sequential
        body = chain(*layers, nn.Flatten())
        return _initialised(body, self.discriminator_norm), channels[-1] * math.prod(sizes[-1])

    def _channels(self, count: int) -> list[int]:
        return [min(self.width * 2**index, self.widest) for index in range(count)]

    def _norm(self, channels: int, kind: str) -> list[nn.Module]:
        return [BatchNorm(channels)] if kind == "batch" else []


def _initialised(body: nn.Sequential, norm: str) -> nn.Sequential:
    # Small weights go with batch norm, which makes up for their size; without it nothing would.
    for layer in body if norm == "batch" else ():
        if isinstance(layer, (Linear, nn.modules.conv._ConvNd)):
            nn.init.normal_(layer.weight, std=_DCGAN_DEVIATION)
    return body
