"""The dense layer of small networks that are differentiated twice."""

from __future__ import annotations

from torch import Tensor

from fusewire.nn import Linear
from fusewire.ops.linear import composed
from fusewire.ops.linear.rivalry import products_gain


class Dense(Linear):
    """`fusewire.nn.Linear`, which runs PyTorch's operators where our product is not the faster one.

    What is left to win in layers of some hundred units is what a call costs, in particular one
    whose gradient is differentiated again, and PyTorch's own operators never enter Python for it.

    Example:
        >>> import torch
        >>> Dense(3, 2, activation="relu")(torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """

    _ours = products_gain()

    def forward(self, input: Tensor) -> Tensor:
        """Applies the layer to ``(..., in_features)``; returns ``(..., out_features)``."""
        if self._ours:
            return super().forward(input)
        return composed.linear(input, self.weight, self.bias, self.activation or "identity")
