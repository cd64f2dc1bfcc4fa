"""Differentiable changes to what the discriminator sees, real and generated alike (DiffAugment).

With few data a discriminator learns them by heart; one that always sees them changed cannot, and
because the changes are differentiable, the generator learns through them (Zhao et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from fusewire.models.gan.draws import Draws

AugmentationKind: TypeAlias = Literal["brightness", "contrast", "translation", "cutout"]

_LARGEST_SHIFT = 1 / 8  # of each side
_CUT = 1 / 2  # of each side


def augment(images: Tensor, kinds: Sequence[AugmentationKind], draws: Draws) -> Tensor:
    """Changes each image in its own way.

    Args:
        images: (batch, channels, height, width).
        kinds: which changes, in this order.
        draws: where the random numbers come from.

    Returns:
        Images of the same shape.
    """
    for kind in kinds:
        images = _CHANGES[kind](images, draws)
    return images


def _brightness(images: Tensor, draws: Draws) -> Tensor:
    return images + (draws.uniform(1, 1, 1) - 0.5)


def _contrast(images: Tensor, draws: Draws) -> Tensor:
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (draws.uniform(1, 1, 1) + 0.5) + mean


def _translation(images: Tensor, draws: Draws) -> Tensor:
    batch, _, height, width = images.shape
    most = [max(1, round(side * _LARGEST_SHIFT)) for side in (height, width)]
    places = torch.tensor([2 * m + 1 for m in most], device=images.device)
    shift = (draws.uniform(2) * places).long()
    rows = torch.arange(height, device=images.device)[None, :, None] + shift[:, 0, None, None]
    columns = torch.arange(width, device=images.device)[None, None, :] + shift[:, 1, None, None]
    wide = pad(images, (most[1], most[1], most[0], most[0])).permute(0, 2, 3, 1)
    item = torch.arange(batch, device=images.device)[:, None, None]
    return wide[item, rows, columns].permute(0, 3, 1, 2)


def _cutout(images: Tensor, draws: Draws) -> Tensor:
    _, _, height, width = images.shape
    centre = draws.uniform(2) * torch.tensor([height, width], device=images.device)
    rows = torch.arange(height, device=images.device)[None, :] - centre[:, :1]
    columns = torch.arange(width, device=images.device)[None, :] - centre[:, 1:]
    inside = (rows.abs() < height * _CUT / 2)[:, :, None] & (columns.abs() < width * _CUT / 2)[
        :, None, :
    ]
    return images * ~inside[:, None]


_CHANGES = {
    "brightness": _brightness,
    "contrast": _contrast,
    "translation": _translation,
    "cutout": _cutout,
}
