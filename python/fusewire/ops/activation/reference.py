"""Activations as they are defined, in float64: the truth that tests compare with."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def activate(x: Array, activation: str | None) -> tuple[Array, Array]:
    """The activation of `x` and its derivative; None is the identity."""
    gate = 1 / (1 + np.exp(-x))
    match activation:
        case None:
            return x, np.ones_like(x)
        case "gelu":
            normal = 0.5 * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2)))
            return x * normal, normal + x * np.exp(-(x**2) / 2) / math.sqrt(math.tau)
        case "gelu_tanh":
            inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
            slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
            tanh = np.tanh(inner)
            return 0.5 * x * (1 + tanh), 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * slope
        case "relu":
            return np.maximum(x, 0), (x > 0).astype(np.float64)
        case "sigmoid":
            return gate, gate * (1 - gate)
        case "silu":
            return x * gate, gate * (1 + x * (1 - gate))
        case "tanh":
            return np.tanh(x), 1 - np.tanh(x) ** 2
    raise ValueError(f"there is no activation {activation!r}")
