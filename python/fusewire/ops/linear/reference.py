"""The linear layer as it is defined, in float64: the truth that tests compare with."""

from __future__ import annotations

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
        case "relu":
            return np.maximum(x, 0), (x > 0).astype(np.float64)
        case "sigmoid":
            return gate, gate * (1 - gate)
        case "silu":
            return x * gate, gate * (1 + x * (1 - gate))
        case "tanh":
            return np.tanh(x), 1 - np.tanh(x) ** 2
    raise ValueError(f"there is no activation {activation!r}")
