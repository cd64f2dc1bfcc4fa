"""The linear layer as it is defined, in float64: the truth that tests compare with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusewire.ops.activation.reference import Array, activate


def linear(
    input: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | None, activation: str | None
) -> Array:
    """``activation(input @ weight.T + bias)``."""
    return activate(_preactivation(input, weight, bias), activation)[0]


def linear_backward(
    grad_output: NDArray[Any],
    input: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    activation: str | None,
) -> tuple[Array, Array, Array]:
    """The gradients of input, weight and bias."""
    slope = activate(_preactivation(input, weight, bias), activation)[1]
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
