"""The linear layer as a module."""

from __future__ import annotations

import torch

from fusewire.nn.symbolic import is_symbolic, recorded, refuse_script
from fusewire.ops.activation.names import check_name
from fusewire.ops.linear import Activation, linear


class Linear(torch.nn.Linear):
    """`torch.nn.Linear`, computed by :func:`fusewire.linear`.

    Args:
        in_features: Size of each input.
        out_features: Size of each output.
        bias: Whether a bias is learnt.
        device: Where the parameters are.
        dtype: The parameters' type.
        activation: What is applied to the output; not part of the state_dict.

    Raises:
        ValueError: If there is no such activation.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> layer = fw.nn.Linear(3, 2, activation="relu")
        >>> layer(torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """

    __prepare_scriptable__ = refuse_script

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: Activation | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        if activation is not None:
            check_name(activation)
        self.activation = activation

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Applies the layer to ``(..., in_features)``; returns ``(..., out_features)``."""
        if is_symbolic(input):
            return recorded(self, input)  # type: ignore[no-any-return]
        return linear(input, self.weight, self.bias, self.activation)

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses."""
        shown = super().extra_repr()
        return shown if self.activation is None else f"{shown}, activation={self.activation!r}"
