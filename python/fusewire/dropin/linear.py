"""Linear layers of models that exist already."""

from __future__ import annotations

import torch
from torch.nn import functional

from fusewire import nn
from fusewire.nn.symbolic import is_symbolic, recorded
from fusewire.ops.dispatcher import PLAIN, REAL
from fusewire.ops.linear import linear


def is_served(input: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a linear layer shall run our product.

    Not in half precision, where PyTorch's runs at the machine's peak too, and uses AMX where it is;
    nor for tensors to which somebody has given another meaning, as those of several processes.
    """
    return (
        input.is_cpu
        and input.dtype in REAL
        and type(input) in PLAIN
        and type(weight) in PLAIN
        and not input.is_nested
        and not torch.is_autocast_enabled("cpu")
    )


class Linear(nn.Linear):
    """What `torch.nn.Linear` becomes."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Applies the layer to ``(..., in_features)``; returns ``(..., out_features)``."""
        if is_symbolic(input):
            return recorded(self, input)  # type: ignore[no-any-return]
        apply = linear if is_served(input, self.weight) else functional.linear
        return apply(input, self.weight, self.bias)
