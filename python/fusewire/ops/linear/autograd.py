"""The linear layer on tensors: two operators in PyTorch's dispatcher, and autograd around them.

Imported by the first call with a tensor. Autograd is a Function outside the operators because that
costs half of what a derivative registered with the dispatcher costs, and nothing without gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from fusewire import _native
from fusewire.ops import dispatcher
from fusewire.ops.activation.composed import FOLLOWS_FROM_OUTPUT
from fusewire.ops.linear import composed

_DIFFERENTIATES_SUMS = frozenset({"gelu", "gelu_tanh", "silu"})
"""Activations whose derivative follows from what they were applied to. The backward kernel can
compute that again, which it shall where saving would round it to 16 bits."""


def _forward_fake(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str
) -> torch.Tensor:
    return input.new_empty(input.shape[0], weight.shape[0])


def _forward_with_sums_fake(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str
) -> tuple[torch.Tensor, torch.Tensor]:
    output = _forward_fake(input, weight, bias, activation)
    return output, torch.empty_like(output)


def _backward_fake(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    saved: torch.Tensor | None,
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
_forward_with_sums = dispatcher.declare(
    "linear_with_sums",
    "(Tensor input, Tensor weight, Tensor? bias, str activation) -> (Tensor output, Tensor sums)",
    _forward_with_sums_fake,
)
_backward = dispatcher.declare(
    "linear_backward",
    "(Tensor grad_output, Tensor input, Tensor weight, Tensor? bias, Tensor? saved, "
    "str activation, bool for_input, bool for_weight, bool for_bias) -> (Tensor, Tensor, Tensor)",
    _backward_fake,
)

_DENSE = torch.strided
_PLAIN = dispatcher.PLAIN
_TAKES_TENSORS = _native.takes_tensors()
"""Whether this PyTorch hands tensors to the extension module past its dispatcher."""


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        activation: str,
        direct: bool,
    ) -> torch.Tensor:
        output: torch.Tensor | None
        saved: torch.Tensor | None = None
        keeps = activation in _DIFFERENTIATES_SUMS and input.dtype in dispatcher.REAL
        # What is exported is not trained: its backward pass is not recorded.
        if keeps and not torch.compiler.is_exporting():
            with_sums = _native.apply_linear_with_sums if direct else _forward_with_sums
            output, saved = with_sums(input, weight, bias, activation) or (None, None)
        else:
            apply = _native.apply_linear if direct else _forward
            output = apply(input, weight, bias, activation)
            saved = output if activation in FOLLOWS_FROM_OUTPUT else None
        if output is None:
            raise dispatcher.NotServedError
        ctx.activation = activation
        ctx.save_for_backward(input, weight, bias, saved)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input, weight, bias, saved = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            wanted = dispatcher.needed_now(ctx, wanted)
        gradients: Sequence[torch.Tensor | None]
        if torch.is_grad_enabled() and ctx.activation == "identity":
            of_rows, *of_others = composed.gradients_of_identity(
                _rows(grad_output), _rows(input), weight, wanted
            )
            gradients = [None if of_rows is None else of_rows.view(input.shape), *of_others]
        elif torch.is_grad_enabled():
            gradients = dispatcher.differentiable_gradients(
                partial(composed.linear, activation=ctx.activation),
                (input, weight, bias),
                (grad_output,),
                wanted,
            )
        else:
            gradients = _gradients(grad_output, input, weight, bias, saved, ctx.activation, wanted)
        input_grad, weight_grad, bias_grad = (
            gradient if needed else None for gradient, needed in zip(gradients, wanted, strict=True)
        )
        return input_grad, weight_grad, bias_grad, None, None


def _gradients(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    saved: torch.Tensor | None,
    activation: str,
    wanted: tuple[bool, bool, bool],
) -> Sequence[torch.Tensor]:
    """The gradients of input, weight and bias; what is not wanted comes out empty."""
    if _TAKES_TENSORS and dispatcher.takes_gradient(grad_output):
        direct = _native.apply_linear_backward(
            grad_output, input, weight, bias, saved, activation, wanted
        )
        if direct is not None:
            return direct
    rows, outer = _rows(input), _rows(grad_output)
    kept = None if saved is None else _rows(saved)
    found = list(_backward(outer, rows, weight, bias, kept, activation, *wanted))
    if wanted[0]:
        found[0] = found[0].view(input.shape)
    return found


def _rows(operand: torch.Tensor) -> torch.Tensor:
    """All dimensions before the last as one."""
    if operand.dim() == 2:
        return operand
    return operand.reshape(operand.shape[:-1].numel(), operand.shape[-1])


def linear(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str
) -> torch.Tensor:
    """See :func:`fusewire.linear`; `activation` is ``"identity"`` for none."""
    if (
        _TAKES_TENSORS
        and type(input) in _PLAIN
        and type(weight) in _PLAIN
        and input.layout is _DENSE
        and weight.layout is _DENSE
        and (bias is None or type(bias) in _PLAIN)
        and not dispatcher.is_watched()
    ):
        direct = _past_dispatcher(input, weight, bias, activation)
        if direct is not None:
            return direct
    if torch.is_autocast_enabled("cpu"):
        input, weight, bias = dispatcher.autocast(input, weight, bias)
    served = dispatcher.is_served(input, dispatcher.STORED)
    if not served or (isinstance(weight, torch.Tensor) and weight.layout is not _DENSE):
        return composed.linear(input, weight, bias, activation)
    if input.dim() == 0:
        raise ValueError("input must have at least 1 dimension, but is a single number")
    try:
        rows = _rows(input)
        if dispatcher.needs_gradient(input, weight, bias):
            output: torch.Tensor = dispatcher.apply(_Linear, rows, weight, bias, activation, False)
        else:
            output = _forward(rows, weight, bias, activation)
    except (RuntimeError, AttributeError) as error:
        given = {"input": input, "weight": weight, "bias": bias}
        raise dispatcher.as_raised(error, ["bias"], **given) from None
    return output if input.dim() == 2 else output.reshape(*input.shape[:-1], weight.shape[0])


def _past_dispatcher(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str
) -> torch.Tensor | None:
    """The output, or None where the dispatcher must see the call or say what is wrong with it."""
    wanted = input.requires_grad or weight.requires_grad
    wanted = wanted or (bias is not None and bias.requires_grad)
    if not (wanted and torch.is_grad_enabled()):
        return _native.apply_linear(input, weight, bias, activation)
    try:
        output: torch.Tensor = _Linear.apply(input, weight, bias, activation, True)
    except dispatcher.NotServedError:
        return None
    return output
