"""Activations of NumPy arrays."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fusewire import _native
from fusewire.ops.activation.names import check_name
from fusewire.ops.door import check_array

_Real = TypeVar("_Real", np.float32, np.float64)


def activate(input: NDArray[_Real], activation: str) -> NDArray[_Real]:
    """See :func:`fusewire.ops.activation.activate`."""
    check_name(activation)
    return _native.activate(_rows(input, "input"), activation).reshape(input.shape)


def activate_backward(
    grad_output: NDArray[_Real], saved: NDArray[_Real], activation: str
) -> NDArray[_Real]:
    """Computes the gradient of the input of :func:`fusewire.ops.activation.activate`.

    Args:
        grad_output: The gradient of the output, of any shape.
        saved: What the derivative follows from, of the same shape: the output of ``"relu"``,
            ``"sigmoid"`` and ``"tanh"``, the input of the others.
        activation: The forward call's.

    Returns:
        The gradient, of the same shape.

    Raises:
        TypeError: If an operand is no array of floating-point numbers, or their types differ.
        ValueError: If their shapes differ, or there is no such activation.

    Example:
        >>> import numpy as np
        >>> from fusewire.ops.activation import activate_backward
        >>> activate_backward(np.array([1.0, 1.0]), np.array([0.0, 2.0]), "relu")
        array([0., 1.])
    """
    check_name(activation)
    gradient, kept = _rows(grad_output, "grad_output"), _rows(saved, "saved")
    if grad_output.shape != saved.shape:
        raise ValueError(
            f"saved must have the shape of grad_output, {list(grad_output.shape)}, "
            f"but has {list(saved.shape)}"
        )
    return _native.activate_backward(gradient, kept, activation).reshape(grad_output.shape)


def _rows(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Any shape as ``(rows, size)``."""
    array = check_array(array, name)
    if array.ndim == 0:
        return array.reshape(1, 1)
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
