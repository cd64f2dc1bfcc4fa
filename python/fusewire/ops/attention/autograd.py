"""Attention on tensors: two operators in PyTorch's dispatcher, and autograd around them.

Imported by the first call with a tensor. Autograd is a Function outside the operators because that
costs half of what a derivative registered with the dispatcher costs, and nothing without gradients.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fusewire.ops import dispatcher
from fusewire.ops.attention import composed
from fusewire.ops.attention.composed import Extras
from fusewire.ops.attention.options import Options, check_heads

_OPERANDS = (
    "Tensor query, Tensor key, Tensor value, Tensor? attn_mask, Tensor? query_lengths, "
    "Tensor? key_lengths, float scale, int left, int right, bool bottom_right"
)


def _forward_fake(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: object
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = query.shape[:-1]
    return query.new_empty(*shape, value.shape[-1]), query.new_empty(shape)


def _backward_fake(
    grad_output: torch.Tensor,
    grad_lse: torch.Tensor | None,
    output: torch.Tensor,
    lse: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *_: object,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        query.new_empty(query.shape),
        key.new_empty(key.shape),
        value.new_empty(value.shape),
    )


_forward = dispatcher.declare("attention", f"({_OPERANDS}) -> (Tensor, Tensor)", _forward_fake)
_backward = dispatcher.declare(
    "attention_backward",
    f"(Tensor grad_output, Tensor? grad_lse, Tensor output, Tensor lse, {_OPERANDS}) "
    "-> (Tensor, Tensor, Tensor)",
    _backward_fake,
)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None,
        query_lengths: torch.Tensor | None,
        key_lengths: torch.Tensor | None,
        options: Options,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        operands = (query, key, value, attn_mask, query_lengths, key_lengths)
        output, lse = _forward(*operands, *options.score)
        ctx.options = options
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*operands, output, lse)
        return output, lse

    @staticmethod
    def backward(
        ctx: Any, grad_output: torch.Tensor | None, grad_lse: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        *operands, output, lse = ctx.saved_tensors
        if grad_output is None:
            grad_output = torch.zeros_like(output)
        if torch.is_grad_enabled():
            if grad_lse is None:
                grad_lse = torch.zeros_like(lse)
            gradients = dispatcher.differentiable_gradients(
                partial(composed.attention, options=ctx.options),
                operands,
                (grad_output, grad_lse),
                ctx.needs_input_grad[:6],
            )[:3]
        else:
            gradients = _backward(grad_output, grad_lse, output, lse, *operands, *ctx.options.score)
        return (*gradients, None, None, None, None)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    options: Options,
    enable_gqa: bool,
    attn_mask: torch.Tensor | None,
    alibi_slopes: torch.Tensor | None,
    sinks: torch.Tensor | None,
    query_lengths: torch.Tensor | None,
    key_lengths: torch.Tensor | None,
    return_lse: bool,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """See :func:`fusewire.scaled_dot_product_attention`."""
    if torch.is_autocast_enabled("cpu"):
        query, key, value = dispatcher.autocast(query, key, value)
    given: dict[str, Any] = {"query": query, "key": key, "value": value, "attn_mask": attn_mask}
    given |= {"query_lengths": query_lengths, "key_lengths": key_lengths}
    try:
        shape = query.shape
        query, key, value = (
            _with_one_batch(given[name], name) for name in ("query", "key", "value")
        )
        check_heads(query.shape[1], key.shape[1], enable_gqa)
        _check_per_head(alibi_slopes, "alibi_slopes", query.shape[1])
        _check_per_head(sinks, "sinks", query.shape[1])
        batch = query.shape[0]
        extras = Extras(
            _mask(attn_mask, shape, query, key),
            _lengths(query_lengths, batch),
            _lengths(key_lengths, batch),
        )
        if alibi_slopes is not None:
            mask = composed.with_alibi(alibi_slopes, query, key, options.bottom_right, extras)
            extras = extras._replace(attn_mask=mask.expand(*query.shape[:-1], key.shape[-2]))
        output, lse = _dispatch(query, key, value, options, extras, return_lse or sinks is not None)
        if sinks is not None and lse is not None:
            output, lse = composed.with_sinks(output, lse, sinks)
    except (RuntimeError, AttributeError) as error:
        raise dispatcher.as_raised(error, **given) from None
    output = output.reshape(*shape[:-1], value.shape[-1])
    return (output, lse.reshape(shape[:-1])) if return_lse and lse is not None else output


def _dispatch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    options: Options,
    extras: Extras,
    needs_lse: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Calls the implementation that serves the operands."""
    narrow = query.device.type == "cpu" and query.dtype in (torch.bfloat16, torch.float16)
    if narrow:
        dtype = query.dtype
        query, key, value = query.float(), key.float(), value.float()
        if extras.attn_mask is not None and extras.attn_mask.dtype != torch.bool:
            extras = extras._replace(attn_mask=extras.attn_mask.float())
        output, lse = _dispatch(query, key, value, options, extras, needs_lse)
        return output.to(dtype), lse
    if (
        query.device.type != "cpu"
        and not needs_lse
        and composed.is_plain(query, key, options, extras)
    ):
        return composed.plain(query, key, value, extras.attn_mask, options), None
    mask = extras.attn_mask
    composes = options.softcap is not None or options.dropout_p > 0
    composes |= mask is not None and dispatcher.needs_gradient(mask)
    if composes or not dispatcher.is_served(query):
        return composed.attention(query, key, value, *extras, options=options)
    results: tuple[torch.Tensor, torch.Tensor]
    if dispatcher.needs_gradient(query, key, value):
        results = _Attention.apply(query, key, value, *extras, options)
    else:
        results = _forward(query, key, value, *extras, *options.score)
    return results


def _with_one_batch(operand: torch.Tensor, name: str) -> torch.Tensor:
    """``(..., heads, length, dim)`` as ``(batch, heads, length, dim)``."""
    if operand.dim() == 4:
        return operand
    if operand.dim() < 2:
        raise ValueError(
            f"{name} must have at least 2 dimensions, but has shape {list(operand.shape)}"
        )
    if operand.dim() == 2:
        operand = operand.unsqueeze(0)
    batch = operand.shape[:-3].numel()
    return operand.reshape(batch, *operand.shape[-3:])


def _mask(
    mask: torch.Tensor | None, shape: torch.Size, query: torch.Tensor, key: torch.Tensor
) -> torch.Tensor | None:
    """The mask with one batch dimension, expanded without a copy where strides can tell it."""
    if mask is None:
        return None
    if mask.dtype != torch.bool:
        if not mask.is_floating_point():
            raise TypeError(f"attn_mask must be bool or floating, but is {mask.dtype}")
        mask = mask.to(query.dtype)
    expected = (*shape[:-1], key.shape[-2])
    try:
        mask = mask.expand(expected)
    except RuntimeError:
        raise ValueError(
            f"attn_mask must be broadcastable to {list(expected)}, but has shape {list(mask.shape)}"
        ) from None
    return mask.reshape(*query.shape[:-1], key.shape[-2])


def _check_per_head(numbers: torch.Tensor | None, name: str, heads: int) -> None:
    if numbers is not None and numbers.shape != (heads,):
        raise ValueError(f"{name} must have shape [{heads}], but has {list(numbers.shape)}")


def _lengths(lengths: torch.Tensor | None, batch: int) -> torch.Tensor | None:
    if lengths is None:
        return None
    if lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise TypeError(f"lengths must be whole numbers, but are {lengths.dtype}")
    lengths = lengths.to(torch.int64)
    return lengths.reshape(batch) if lengths.numel() == batch else lengths
