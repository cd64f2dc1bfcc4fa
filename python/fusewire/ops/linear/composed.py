"""The linear layer composed of PyTorch's own operators.

It runs where our kernels do not (other devices, function transforms), and it is what a gradient is
made of that shall be differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from fusewire.ops.activation.composed import activate


def linear(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str
) -> torch.Tensor:
    """``activation(input @ weight.T + bias)``."""
    return activate(functional.linear(input, weight, bias), activation)


def gradients_of_identity(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor | None, ...]:
    """Gradients of the layer without activation, which need no output; rows are 2-dimensional."""
    return (
        grad_output @ weight if wanted[0] else None,
        grad_output.T @ input if wanted[1] else None,
        grad_output.sum(0) if wanted[2] else None,
    )
