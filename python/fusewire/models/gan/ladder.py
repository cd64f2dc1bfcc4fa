"""Sizes through which networks of convolutions go up and down, for samples of any size."""

from __future__ import annotations

import math
from typing import TypeAlias

from torch import nn

from fusewire.errors import InputError
from fusewire.models.gan.networks import Shape

Convolution: TypeAlias = type[nn.Conv1d] | type[nn.Conv2d]


def convolution_for(shape: Shape) -> Convolution:
    """The convolution that reads samples of a shape: channels, then one or two lengths.

    Raises:
        InputError: samples have no such shape.
    """
    if len(shape) not in (2, 3):
        raise InputError(
            "networks of convolutions read images (channels, height, width) or signals (channels, "
            f"length), got samples of shape {shape}; dense networks (mlp) take any"
        )
    return nn.Conv1d if len(shape) == 2 else nn.Conv2d


def ladder(size: Shape, stride: int, smallest: int) -> list[Shape]:
    """Divides a size by `stride`, rounded up, until no side is longer than `smallest`.

    There are at least two rungs, so that the smallest samples pass a convolution too.

    Example:
        >>> ladder((28, 20), stride=2, smallest=4)
        [(28, 20), (14, 10), (7, 5), (4, 3)]
        >>> ladder((1, 3), stride=2, smallest=4)
        [(1, 3), (1, 3)]
    """
    sizes = [size]
    while max(sizes[-1]) > smallest:
        sizes.append(tuple(s if s <= smallest else math.ceil(s / stride) for s in sizes[-1]))
    return sizes if len(sizes) > 1 else [size, size]


def strides(large: Shape, small: Shape, stride: int) -> Shape:
    """The stride along each side that leads from one rung to the next."""
    return tuple(1 if a == b else stride for a, b in zip(large, small, strict=True))
