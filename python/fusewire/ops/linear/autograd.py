"""The linear layer on tensors: two operators in PyTorch's dispatcher, and autograd around them.

Imported by the first call with a tensor. Autograd is a Function outside the operators because that
costs half of what a derivative registered with the dispatcher costs, and nothing without gradients.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fusewire.ops import dispatcher
from fusewire.ops.linear import composed

_DIFFERENTIATES_OUTPUT = frozenset({"relu", "sigmoid", "tanh"})
"""Activations whose derivative follows from the output; the backward kernel needs it for them."""


def _forward_fake(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str
) -> torch.Tensor:
    return input.new_empty(input.shape[0], weight.shape[0])


def _backward_fake(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    output: torch.Tensor | None,
    activation: str,
    for_input: bool,
    for_weight: bool,
    for_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        input.new_empty(input.shape if for_input else (0,)),
        input.new_empty(weight.shape if for_weight else (0,)),
        input.new_empty(weight.shape[:1] if for_bias else (0,)),
    )


_forward = dispatcher.declare(
    "linear",
    "(Tensor input, Tensor weight, Tensor? bias, str activation) -> Tensor",
    _forward_fake,
)
_backward = dispatcher.declare(
    "linear_backward",
    "(Tensor grad_output, Tensor input, Tensor weight, Tensor? bias, Tensor? output, "
    "str activation, bool for_input, bool for_weight, bool for_bias) -> (Tensor, Tensor, Tensor)",
    _backward_fake,
)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        activation: str,
    ) -> torch.Tensor:
        output: torch.Tensor = _forward(input, weight, bias, activation)
        ctx.activation = activation
        saved = output if activation in _DIFFERENTIATES_OUTPUT else None
        ctx.save_for_backward(input, weight, bias, saved)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input, weight, bias, output = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            wanted = dispatcher.needed_now(ctx, wanted)
        if torch.is_grad_enabled() and ctx.activation == "identity":
            gradients = composed.gradients_of_identity(grad_output, input, weight, wanted)
        elif torch.is_grad_enabled():
            gradients = dispatcher.differentiable_gradients(
                partial(composed.linear, activation=ctx.activation),
                (input, weight, bias),
                (grad_output,),
                wanted,
            )
        else:
            gradients = _backward(grad_output, input, weight, bias, output, ctx.activation, *wanted)
        input_grad, weight_grad, bias_grad = (
            gradient if needed else None for gradient, needed in zip(gradients, wanted, strict=True)
        )
        return input_grad, weight_grad, bias_grad, None


def linear(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str
) -> torch.Tensor:
    """See :func:`fusewire.linear`; `activation` is ``"identity"`` for none."""
    if torch.is_autocast_enabled("cpu"):
        input, weight, bias = dispatcher.autocast(input, weight, bias)
    if not dispatcher.is_served(input, dispatcher.STORED):
        return composed.linear(input, weight, bias, activation)
    if input.dim() == 0:
        raise ValueError("input must have at least 1 dimension, but is a single number")
    try:
        rows = (
            input if input.dim() == 2 else input.reshape(input.shape[:-1].numel(), input.shape[-1])
        )
        if dispatcher.needs_gradient(input, weight, bias):
            output: torch.Tensor = dispatcher.apply(_Linear, rows, weight, bias, activation)
        else:
            output = _forward(rows, weight, bias, activation)
    except (RuntimeError, AttributeError) as error:
        if weight is None:
            raise TypeError("weight must be a PyTorch tensor, but is NoneType") from None
        raise dispatcher.as_raised(error, input=input, weight=weight, bias=bias) from None
    return output if input.dim() == 2 else output.reshape(*input.shape[:-1], weight.shape[0])
