"""Dense layers and activations of models that are trained, by whoever is the faster one."""

from __future__ import annotations

import torch
from torch import Tensor

from fusewire.nn import Linear
from fusewire.ops.activation import Activation, activate
from fusewire.ops.activation import composed as pytorchs
from fusewire.ops.linear import composed, linear
from fusewire.ops.linear.rivalry import rows_that_gain

_MANY_ROWS = rows_that_gain()
_FEW_ROWS = 8  # as text is generated; with more, a faster product counts more than a cheaper call
_MANY = 16_384  # numbers from which a faster activation counts more than a cheaper call
_PYTORCHS = ("relu", "sigmoid")  # of any size


def dense(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation | None = None
) -> Tensor:
    """`fusewire.linear`, but PyTorch's operators where our product is not the faster.

    What is left to win there is what a call costs, in particular one whose gradient is
    differentiated again, and PyTorch's own operators never enter Python for it. For few rows
    without gradients, as text is generated, our call is the cheaper one.

    Args:
        input: ``(..., in_features)``.
        weight: ``(out_features, in_features)``.
        bias: ``(out_features)``.
        activation: What is applied to the output.

    Returns:
        ``(..., out_features)``.

    Example:
        >>> import torch
        >>> dense(torch.ones(5, 3), torch.ones(2, 3)).shape
        torch.Size([5, 2])
    """
    rows = input.shape[:-1].numel()
    if rows >= _MANY_ROWS or (rows < _FEW_ROWS and not torch.is_grad_enabled()):
        return linear(input, weight, bias, activation)
    output = composed.linear(input, weight, bias, "identity")
    return output if activation is None else activated(output, activation)


def activated(input: Tensor, activation: Activation) -> Tensor:
    """`fusewire.ops.activation.activate`, but PyTorch's operators where they are the faster ones.

    They are for few numbers, whose calls cost more than they do, for ReLU, which costs what it
    takes to read them, and for the sigmoid, where what a faster one wins goes into the call.

    Args:
        input: Any shape.
        activation: What is applied.

    Returns:
        The same shape.

    Example:
        >>> import torch
        >>> activated(torch.tensor([-1.0, 2.0]), "relu").tolist()
        [0.0, 2.0]
    """
    theirs = activation in _PYTORCHS or input.numel() < _MANY
    return (pytorchs.activate if theirs else activate)(input, activation)


def product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right`, of matrices, by whichever product is the faster one.

    Args:
        left: ``(rows, depth)``.
        right: ``(depth, columns)``.

    Returns:
        ``(rows, columns)``.

    Example:
        >>> product(torch.ones(2, 3), torch.ones(3, 1)).flatten().tolist()
        [3.0, 3.0]
    """
    return linear(left, right.t()) if len(left) >= _MANY_ROWS else left @ right


class Dense(Linear):
    """`fusewire.nn.Linear`, computed by :func:`dense`.

    Example:
        >>> import torch
        >>> Dense(3, 2, activation="relu")(torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Applies the layer to ``(..., in_features)``; returns ``(..., out_features)``."""
        return dense(input, self.weight, self.bias, self.activation)
