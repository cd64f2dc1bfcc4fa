"""The linear layer on NumPy arrays."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fusewire import _native
from fusewire.ops.activation.names import check_name
from fusewire.ops.door import check_array

_Real = TypeVar("_Real", np.float32, np.float64)


def linear(
    input: NDArray[_Real],
    weight: NDArray[_Real],
    bias: NDArray[_Real] | None = None,
    activation: str | None = None,
) -> NDArray[_Real]:
    """See :func:`fusewire.linear`."""
    _check_weights(weight, bias)
    output = _native.linear(_rows(input, "input"), weight, bias, activation or "identity")
    return output.reshape(*input.shape[:-1], output.shape[1])


def linear_backward(
    grad_output: NDArray[_Real],
    input: NDArray[_Real],
    weight: NDArray[_Real],
    bias: NDArray[_Real] | None = None,
    output: NDArray[_Real] | None = None,
    activation: str | None = None,
) -> tuple[NDArray[_Real], NDArray[_Real], NDArray[_Real] | None]:
    """Computes the gradients of the operands of :func:`fusewire.linear`.

    Args:
        grad_output: ``(..., output_size)``, the gradient of the output.
        input: ``(..., input_size)``, as in the forward call; so are the others.
        weight: ``(output_size, input_size)``.
        bias: ``(output_size)`` or None.
        output: ``(..., output_size)``, what the forward call returned; needed for ``"relu"``,
            ``"sigmoid"`` and ``"tanh"``.
        activation: The forward call's.

    Returns:
        The gradients of input, weight and bias, shaped like them; the last is None without a bias.

    Raises:
        TypeError: If an operand is no array of floating-point numbers, or their types differ.
        ValueError: If shapes do not fit together, or `output` is missing.

    Example:
        >>> import numpy as np
        >>> from fusewire.ops.linear import linear_backward
        >>> grad_input, grad_weight, _ = linear_backward(np.ones((1, 1)), np.ones((1, 2)),
        ...                                              np.array([[3.0, 4.0]]))
        >>> grad_input
        array([[3., 4.]])
    """
    _check_weights(weight, bias)
    if activation is not None:
        check_name(activation)
    for name, of in (("grad_output", grad_output), ("output", output)):
        if of is not None and np.shape(of)[:-1] != np.shape(input)[:-1]:
            raise ValueError(
                f"{name} must have the leading dimensions of the input, "
                f"{np.shape(input)[:-1]}, but has {np.shape(of)[:-1]}"
            )
    grad_input, grad_weight, grad_bias = _native.linear_backward(
        _rows(grad_output, "grad_output"),
        _rows(input, "input"),
        weight,
        bias,
        None if output is None else _rows(output, "output"),
        activation or "identity",
    )
    return grad_input.reshape(input.shape), grad_weight, None if bias is None else grad_bias


def _check_weights(weight: object, bias: object) -> None:
    check_array(weight, "weight")
    if bias is not None:
        check_array(bias, "bias")


def _rows(array: NDArray[Any], name: str) -> NDArray[Any]:
    """``(..., size)`` as ``(rows, size)``."""
    array = check_array(array, name)
    if array.ndim == 0:
        raise ValueError(f"{name} must have at least 1 dimension, but is a single number")
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
