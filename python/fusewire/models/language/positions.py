"""How tokens know their places: vectors added to the embedding, or angles of queries and keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fusewire.models.language.transformer_config import RotaryScaling, TransformerConfig


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
        self.register_buffer("cosines", angles.cos().float(), persistent=False)
        self.register_buffer("sines", angles.sin().float(), persistent=False)

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
        kept = torch.zeros_like(frequencies)
        if scaling.learnt_context is not None:
            turns = scaling.learnt_context * frequencies / (2 * math.pi)
            between = scaling.fast_turns - scaling.slow_turns
            kept = ((turns - scaling.slow_turns) / between).clamp(0.0, 1.0)
        frequencies = frequencies * (kept + (1 - kept) / scaling.factor)
    return torch.arange(context, dtype=torch.float64)[:, None] * frequencies
