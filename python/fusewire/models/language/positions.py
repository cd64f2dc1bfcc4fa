"""How tokens know their places: vectors added to the embedding, or angles of queries and keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fusewire.models.language.transformer_config import (
    RotaryScaling,
    TransformerConfig,
    YarnScaling,
)


class AddedPositions(nn.Module):
    r"""A vector for each place, added to the embedding: learned, or fixed sinusoids.

    .. math:: \sin(p\,\omega_i),\ \cos(p\,\omega_i), \qquad \omega_i = 10000^{-2i / d}

    Args:
        config: kind and sizes.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        if config.positions == "learned":
            self.weight = nn.Parameter(torch.randn(config.context, config.embed_dim))
        else:
            angles = _angles(config.context, config.embed_dim + config.embed_dim % 2, 10_000.0)
            waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
            fixed = waves[:, : config.embed_dim].float()
            self.register_buffer("weight", fixed, persistent=False)

    weight: Tensor

    def forward(self, places: Tensor) -> Tensor:
        """The vectors of places (..., T): (..., T, E)."""
        return nn.functional.embedding(places, self.weight)


class RotaryPositions(nn.Module):
    r"""Angles by which queries and keys turn, so that their product tells their distance.

    .. math:: \theta_{p,i} = p \cdot \mathrm{base}^{-2i / d}

    The two numbers that turn together lie half a head apart, as in Llama's weights.

    Args:
        config: kind and sizes.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        angles = _angles(
            config.context, config.width_of_head, config.rotary_base, config.rotary_scaling
        )
        angles = torch.cat([angles, angles], dim=-1)
        magnitude = 1.0 if config.rotary_scaling is None else config.rotary_scaling.magnitude
        self.register_buffer("cosines", (magnitude * angles.cos()).float(), persistent=False)
        self.register_buffer("sines", (magnitude * angles.sin()).float(), persistent=False)

    cosines: Tensor
    sines: Tensor

    def forward(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of places (T) or (B, T): (T, D) or (B, 1, T, D)."""
        cosines, sines = self.cosines[places], self.sines[places]
        return (cosines, sines) if places.dim() == 1 else (cosines[:, None], sines[:, None])


def rotate(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turns queries or keys (B, H, T, D) by the angles of their places."""
    cosines, sines = rotation
    first, second = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat([-second, first], dim=-1) * sines


def _angles(context: int, width: int, base: float, scaling: RotaryScaling | None = None) -> Tensor:
    """Angle of each place and frequency, (context, width // 2), in float64 until it is used."""
    exponents = torch.arange(width // 2, dtype=torch.float64) / (width // 2)
    frequencies = torch.exp(-math.log(base) * exponents)
    if scaling is not None:
        kept = _kept(frequencies, base, scaling)
        frequencies = frequencies * (kept + (1 - kept) / scaling.factor)
    return torch.arange(context, dtype=torch.float64)[:, None] * frequencies


def _kept(frequencies: Tensor, base: float, scaling: RotaryScaling) -> Tensor:
    """How much of each frequency stays as it is, from 0 to 1."""
    if scaling.learnt_context is None:
        return torch.zeros_like(frequencies)
    ends = scaling.slow_turns, scaling.fast_turns
    if not isinstance(scaling, YarnScaling):
        turns = scaling.learnt_context * frequencies / (2 * math.pi)
        return ((turns - ends[0]) / (ends[1] - ends[0])).clamp(0.0, 1.0)
    angles = len(frequencies)
    last, first = (
        angles * math.log(scaling.learnt_context / (2 * math.pi * turns)) / math.log(base)
        for turns in ends
    )
    if scaling.whole_angles:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * angles - 1)
    width = last - first or 1e-3
    return 1 - ((torch.arange(angles, dtype=torch.float64) - first) / width).clamp(0.0, 1.0)
