"""Activations by themselves: one door for NumPy arrays and PyTorch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from fusewire.ops.activation import array
from fusewire.ops.activation.array import activate_backward
from fusewire.ops.activation.names import Activation, check_name
from fusewire.ops.door import is_tensor

if TYPE_CHECKING:
    import torch

__all__ = ["Activation", "activate", "activate_backward"]


@overload
def activate(input: torch.Tensor, activation: Activation) -> torch.Tensor: ...
@overload
def activate(input: NDArray[Any], activation: Activation) -> NDArray[Any]: ...
def activate(input: Any, activation: Activation) -> Any:
    """Applies an activation to each number.

    ``output = activation(input)``, with ``gelu(x) = x Φ(x)`` (Hendrycks and Gimpel 2016), Φ the
    normal distribution's; ``gelu_tanh(x) = ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))``, near it;
    ``silu(x) = x sigmoid(x)``; ``relu(x) = max(x, 0)``.

    Half precision is computed in float32 and rounded once. Tensors on other devices than the CPU
    run PyTorch's own operators.

    Args:
        input: An array or a tensor of any shape, float32, float64, bfloat16 (in NumPy that of
            `ml_dtypes`) or float16.
        activation: ``"gelu"``, ``"gelu_tanh"``, ``"relu"``, ``"sigmoid"``, ``"silu"`` or
            ``"tanh"``.

    Returns:
        Of the shape and kind of `input`, contiguous; tensors take part in autograd.

    Raises:
        TypeError: If the input is neither array nor tensor, or an array of another type.
        ValueError: If there is no such activation.

    Example:
        >>> import numpy as np
        >>> from fusewire.ops.activation import activate
        >>> activate(np.array([-1.0, 0.0, 2.0]), "relu")
        array([0., 0., 2.])
    """
    if is_tensor(input):
        from fusewire.ops.activation import autograd

        check_name(activation)
        return autograd.activate(input, activation)
    if isinstance(input, np.ndarray):
        return array.activate(input, activation)
    raise TypeError(
        f"input must be a NumPy array or a PyTorch tensor, but is {type(input).__name__}"
    )
