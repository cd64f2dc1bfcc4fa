"""A modern residual network without normalisation, after R3GAN (Huang et al. 2024).

Blocks of 1x1, grouped 3x3 and 1x1 convolutions, each begun as the identity; sizes change by plain
resampling between the stages. It goes with the relativistic loss and both gradient penalties.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from fusewire.config import require_declared
from fusewire.errors import InputError
from fusewire.models.gan.heads import HeadKind
from fusewire.models.gan.ladder import convolution_for, ladder, strides
from fusewire.models.gan.networks import Shape
from fusewire.nn import Linear

_LEAK = 0.2
_SMALLEST = 4


@dataclass(frozen=True)
class ResidualConfig:
    """Residual networks, for images (channels, height, width) and signals (channels, length).

    Attributes:
        noise_size: numbers from which the generator makes one sample.
        width: channels at the size of the sample; they double from stage to stage.
        widest: most channels.
        blocks: residual blocks in each stage.
        expansion: how many times wider a block is inside.
        group_size: channels that the 3x3 convolutions read together.
        head: what the last layer's values go through.
    """

    noise_size: int = 64
    width: int = 16
    widest: int = 256
    blocks: int = 1
    expansion: int = 2
    group_size: int = 16
    head: HeadKind = "tanh"

    flat = False
    spectral = False

    def __post_init__(self) -> None:
        require_declared(self)
        for name in ("noise_size", "width", "widest", "blocks", "expansion", "group_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("width", "widest"):
            if getattr(self, name) * self.expansion % self.group_size:
                raise InputError(
                    f"{name} * expansion must be a multiple of group_size, {self.group_size}, got "
                    f"{getattr(self, name)} * {self.expansion}"
                )

    def generator_body(self, inputs: int, shape: Shape) -> nn.Module:
        """A dense layer to the smallest size, then blocks and enlargement, stage by stage."""
        convolution = convolution_for(shape)
        sizes, channels = self._rungs(shape)
        layers: list[nn.Module] = [
            Linear(inputs, channels[-1] * math.prod(sizes[-1])),
            nn.Unflatten(1, (channels[-1], *sizes[-1])),
        ]
        for rung in range(len(sizes) - 1, -1, -1):
            layers += self._stage(convolution, channels[rung], len(sizes))
            if rung:
                layers += [
                    nn.Upsample(size=sizes[rung - 1], mode="nearest"),
                    convolution(channels[rung], channels[rung - 1], 1, bias=False),
                ]
        return nn.Sequential(*layers, convolution(channels[0], shape[0], 1))

    def discriminator_body(self, shape: Shape) -> tuple[nn.Module, int]:
        """Blocks and shrinking, stage by stage."""
        convolution = convolution_for(shape)
        pool = nn.AvgPool1d if len(shape) == 2 else nn.AvgPool2d
        sizes, channels = self._rungs(shape)
        layers: list[nn.Module] = [convolution(shape[0], channels[0], 1)]
        for rung in range(len(sizes)):
            layers += self._stage(convolution, channels[rung], len(sizes))
            if rung + 1 < len(sizes):
                step = strides(sizes[rung], sizes[rung + 1], 2)
                layers += [
                    pool(step, ceil_mode=True, count_include_pad=False),  # type: ignore[arg-type]
                    convolution(channels[rung], channels[rung + 1], 1, bias=False),
                ]
        return nn.Sequential(*layers, nn.Flatten()), channels[-1] * math.prod(sizes[-1])

    def _rungs(self, shape: Shape) -> tuple[list[Shape], list[int]]:
        sizes = ladder(shape[1:], 2, _SMALLEST)
        return sizes, [min(self.width * 2**rung, self.widest) for rung in range(len(sizes))]

    def _stage(
        self, convolution: type[nn.Conv1d] | type[nn.Conv2d], channels: int, stages: int
    ) -> list[nn.Module]:
        inner = channels * self.expansion
        groups = inner // self.group_size
        depth = stages * self.blocks
        return [Block(convolution, channels, inner, groups, depth) for _ in range(self.blocks)]


class Block(nn.Module):
    """`x + W3 a(W2 a(W1 x))`, with a leaky ReLU `a` and `W3` zero at first.

    Args:
        convolution: of one or two dimensions.
        channels: of input and output.
        inner: channels of the grouped convolution.
        groups: of it.
        depth: blocks one after another; the more, the smaller the initial weights, so that the sum
            of all keeps its size (Zhang et al. 2019, "Fixup").
    """

    def __init__(
        self,
        convolution: type[nn.Conv1d] | type[nn.Conv2d],
        channels: int,
        inner: int,
        groups: int,
        depth: int,
    ) -> None:
        super().__init__()
        self.inward = convolution(channels, inner, 1)
        self.grouped = convolution(inner, inner, 3, padding=1, groups=groups)
        self.outward = convolution(inner, channels, 1, bias=False)
        self.activation = nn.LeakyReLU(_LEAK)
        for layer in (self.inward, self.grouped):
            nn.init.kaiming_normal_(layer.weight, _LEAK)
            layer.weight.data.mul_(depth**-0.25)
        nn.init.zeros_(self.outward.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Returns what has the shape of `input`, (batch, channels, ...)."""
        inner = self.activation(self.grouped(self.activation(self.inward(input))))
        output: Tensor = input + self.outward(inner)
        return output
