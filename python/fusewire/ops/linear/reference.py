"""The linear layer as it is defined, in float64: the truth that tests compare with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def linear(
    input: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | None, activation: str | None
) -> Array:
    """``activation(input @ weight.T + bias)``."""
    return _activate(_preactivation(input, weight, bias), activation)[0]


def linear_backward(
    grad_output: NDArray[Any],
    input: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    activation: str | None,
) -> tuple[Array, Array, Array]:
    """The gradients of input, weight and bias."""
    slope = _activate(_preactivation(input, weight, bias), activation)[1]
    delta = grad_output.astype(np.float64) * slope
    rows = tuple(range(delta.ndim - 1))
    return (
        delta @ weight.astype(np.float64),
        np.tensordot(delta, input.astype(np.float64), axes=(rows, rows)),
        delta.sum(axis=rows),
    )


def _preactivation(input: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | None) -> Array:
    product: Array = input.astype(np.float64) @ weight.astype(np.float64).T
    return product if bias is None else product + bias


def _activate(x: Array, activation: str | None) -> tuple[Array, Array]:
    """The activation of `x` and its derivative."""
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
