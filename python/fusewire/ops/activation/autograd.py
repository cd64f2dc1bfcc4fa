"""Activations of tensors: two operators in PyTorch's dispatcher, and autograd around them.

Imported by the first call with a tensor. Autograd is a Function outside the operators because that
costs half of what a derivative registered with the dispatcher costs, and nothing without gradients.
"""

from __future__ import annotations

from typing import Any

import torch

from fusewire import _native
from fusewire.ops import dispatcher
from fusewire.ops.activation import composed
from fusewire.ops.activation.composed import FOLLOWS_FROM_OUTPUT


def _forward_fake(input: torch.Tensor, activation: str) -> torch.Tensor:
    return input.new_empty(input.shape)


def _backward_fake(grad_output: torch.Tensor, saved: torch.Tensor, activation: str) -> torch.Tensor:
    return grad_output.new_empty(grad_output.shape)


_forward = dispatcher.declare("activate", "(Tensor input, str activation) -> Tensor", _forward_fake)
_backward = dispatcher.declare(
    "activate_backward",
    "(Tensor grad_output, Tensor saved, str activation) -> Tensor",
    _backward_fake,
)

_TAKES_TENSORS = _native.takes_tensors()
"""Whether this PyTorch hands tensors to the extension module past its dispatcher."""


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, activation: str, direct: bool) -> torch.Tensor:
        output = (_native.apply_activate if direct else _forward)(input, activation)
        if output is None:
            raise dispatcher.NotServedError
        ctx.activation = activation
        ctx.save_for_backward(output if activation in FOLLOWS_FROM_OUTPUT else input)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (saved,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return composed.gradient(grad_output, saved, ctx.activation), None, None
        return _gradient(grad_output, saved, ctx.activation), None, None


def _gradient(grad_output: torch.Tensor, saved: torch.Tensor, activation: str) -> torch.Tensor:
    if _TAKES_TENSORS and dispatcher.takes_gradient(grad_output):
        direct = _native.apply_activate_backward(grad_output, saved, activation)
        if direct is not None:
            return direct
    gradient: torch.Tensor = _backward(_rows(grad_output), _rows(saved), activation)
    return gradient.view(grad_output.shape)


def _rows(operand: torch.Tensor) -> torch.Tensor:
    """All dimensions before the last as one."""
    if operand.dim() == 2:
        return operand
    rows = operand.shape[:-1].numel()
    return operand.reshape(rows, operand.shape[-1] if operand.dim() else 1)


def activate(input: torch.Tensor, activation: str) -> torch.Tensor:
    """See :func:`fusewire.ops.activation.activate`."""
    if input.is_nested:
        return composed.activate(input, activation)
    if _TAKES_TENSORS and input.layout is torch.strided and dispatcher.is_direct(input):
        direct = _past_dispatcher(input, activation)
        if direct is not None:
            return direct
    if not dispatcher.is_served(input, dispatcher.STORED):
        return composed.activate(input, activation)
    try:
        rows = _rows(input)
        if dispatcher.needs_gradient(input):
            output: torch.Tensor = dispatcher.apply(_Activate, rows, activation, False)
        else:
            output = _forward(rows, activation)
    except RuntimeError as error:
        raise dispatcher.as_raised(error, input=input) from None
    return output if input.dim() == 2 else output.reshape(input.shape)


def _past_dispatcher(input: torch.Tensor, activation: str) -> torch.Tensor | None:
    """The output, or None where the dispatcher must see the call or say what is wrong with it."""
    if not (input.requires_grad and torch.is_grad_enabled()):
        return _native.apply_activate(input, activation)
    try:
        output: torch.Tensor = _Activate.apply(input, activation, True)
    except dispatcher.NotServedError:
        return None
    return output
