"""The linear layer with its activation: one door for NumPy arrays and PyTorch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from fusewire.ops.activation.names import Activation, check_name
from fusewire.ops.door import is_tensor
from fusewire.ops.linear import array
from fusewire.ops.linear.array import linear_backward

if TYPE_CHECKING:
    import torch

__all__ = ["Activation", "linear", "linear_backward"]


@overload
def linear(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: Activation | None = None,
) -> torch.Tensor: ...
@overload
def linear(
    input: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None = None,
    activation: Activation | None = None,
) -> NDArray[Any]: ...
def linear(input: Any, weight: Any, bias: Any = None, activation: Activation | None = None) -> Any:
    """Applies a linear map, adds a bias, and applies an activation.

    ``output = activation(input @ weight.T + bias)``

    Half precision is summed in float32 and rounded once. Tensors on other devices than the CPU run
    PyTorch's own operators.

    Args:
        input: ``(..., input_size)``, an array or a tensor, float32, float64, bfloat16 (in
            NumPy that of `ml_dtypes`) or float16.
        weight: ``(output_size, input_size)``, like `input`.
        bias: ``(output_size)``, like `input`; none if None.
        activation: ``"gelu"``, ``"gelu_tanh"`` (its approximation), ``"relu"``, ``"sigmoid"``,
            ``"silu"`` or ``"tanh"``; none if None.

    Returns:
        ``(..., output_size)``, of the kind of `input`; tensors take part in autograd.

    Raises:
        TypeError: If an operand is neither array nor tensor, or their types differ.
        ValueError: If shapes do not fit together, or there is no such activation.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> fw.linear(np.array([[1.0, -2.0]]), np.eye(2), activation="relu")
        array([[1., 0.]])
    """
    if activation is not None:
        check_name(activation)
    if is_tensor(input):
        from fusewire.ops.linear import autograd

        return autograd.linear(input, weight, bias, activation or "identity")
    if isinstance(input, np.ndarray):
        return array.linear(input, weight, bias, activation)
    raise TypeError(
        f"input must be a NumPy array or a PyTorch tensor, but is {type(input).__name__}"
    )
