"""Activations by PyTorch's own operators.

They run where our kernels do not (other devices, function transforms), and their gradients are what
is differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

_aten = torch.ops.aten

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "tanh": torch.tanh,
}


def _silu_gradient(grad_output: Tensor, input: Tensor) -> Tensor:
    # `aten::silu_backward` cannot be differentiated.
    gate = torch.sigmoid(input)
    return grad_output * (gate * (1 + input * (1 - gate)))


_GRADIENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda grad_output, saved: grad_output,  # noqa: ARG005
    "gelu": _aten.gelu_backward,
    "gelu_tanh": partial(_aten.gelu_backward, approximate="tanh"),
    "relu": partial(_aten.threshold_backward, threshold=0),
    "sigmoid": _aten.sigmoid_backward,
    "silu": _silu_gradient,
    "tanh": _aten.tanh_backward,
}

FOLLOWS_FROM_OUTPUT = frozenset({"relu", "sigmoid", "tanh"})
"""Activations whose derivative follows from the output; that of the others needs the input."""


def activate(input: Tensor, activation: str) -> Tensor:
    """``activation(input)``; `activation` is ``"identity"`` for none."""
    if activation not in _ACTIVATIONS:
        expected = ", ".join(name for name in _ACTIVATIONS if name != "identity")
        raise ValueError(f"activation must be None or one of {expected}, but is {activation!r}")
    return _ACTIVATIONS[activation](input)


def gradient(grad_output: Tensor, saved: Tensor, activation: str) -> Tensor:
    """The gradient of the input, given what the derivative follows from; differentiable."""
    return _GRADIENTS[activation](grad_output, saved)
