"""Attention on tensors: operators in PyTorch's dispatcher, and autograd around them.

Imported by the first call with a tensor. Autograd is a Function outside the operators because that
costs half of what a derivative registered with the dispatcher costs, and nothing without gradients.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fusewire.ops import dispatcher, twice
from fusewire.ops.attention import composed, fit, tensors
from fusewire.ops.attention.composed import Extras
from fusewire.ops.attention.options import Options, check_heads

_OPERANDS = (
    "Tensor query, Tensor key, Tensor value, Tensor? attn_mask, Tensor? alibi_slopes, "
    "Tensor? sinks, Tensor? query_lengths, Tensor? key_lengths, Tensor? seed, "
    "float scale, float softcap, float dropout_p, int left, int right, "
    "bool bottom_right, bool packed"
)
_RESULTS = "Tensor grad_output, Tensor? grad_lse, Tensor output, Tensor lse"


def _forward_fake(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: object
) -> tuple[torch.Tensor, torch.Tensor]:
    packed = rest[-1]
    lse = query.shape[1::-1] if packed else query.shape[:-1]
    output = query.new_empty(*query.shape[:-1], value.shape[-1])
    return output, query.new_empty(lse, dtype=dispatcher.real_of(query.dtype))


def _backward_fake(
    grad_output: torch.Tensor,
    grad_lse: torch.Tensor | None,
    output: torch.Tensor,
    lse: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *rest: object,
) -> tuple[torch.Tensor, ...]:
    # What is not wanted comes out empty.
    return tuple(
        operand.new_empty(operand.shape if wanted else 0)
        for operand, wanted in zip((query, key, value), rest[-3:], strict=True)
    )


def _per_head_fake(*arguments: Any) -> torch.Tensor:
    query, offsets, packed = arguments[4], arguments[10], arguments[-1]
    sequences = offsets.shape[0] - 1 if packed else query.shape[0]
    dtype = dispatcher.real_of(query.dtype)
    return query.new_empty(sequences, query.shape[1], dtype=dtype)  # type: ignore[no-any-return]


def _mask_fake(*arguments: Any) -> torch.Tensor:
    mask, each = arguments[7], _per_head_fake(*arguments)
    if mask.shape[2] > 1:
        return each.new_empty(mask.shape)
    # One row for all queries of a head: heads are summed side by side.
    return each.new_empty(*each.shape, 1, mask.shape[3])


_forward = dispatcher.declare("attention", f"({_OPERANDS}) -> (Tensor, Tensor)", _forward_fake)
_backward = dispatcher.declare(
    "attention_backward",
    f"({_RESULTS}, {_OPERANDS}, bool of_query, bool of_key, bool of_value) "
    "-> (Tensor, Tensor, Tensor)",
    _backward_fake,
)
_backward_of_extras = {
    3: dispatcher.declare(
        "attention_backward_mask", f"({_RESULTS}, {_OPERANDS}) -> Tensor", _mask_fake
    ),
    4: dispatcher.declare(
        "attention_backward_slopes", f"({_RESULTS}, {_OPERANDS}) -> Tensor", _per_head_fake
    ),
    5: dispatcher.declare(
        "attention_backward_sinks", f"({_RESULTS}, {_OPERANDS}) -> Tensor", _per_head_fake
    ),
}
"""The gradients that cost a pass of their own, by the place of their operand."""


_OPTIONAL = tuple(name for name in Extras._fields if not name.endswith("offsets"))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None,
        alibi_slopes: torch.Tensor | None,
        sinks: torch.Tensor | None,
        query_lengths: torch.Tensor | None,
        key_lengths: torch.Tensor | None,
        seed: torch.Tensor | None,
        options: Options,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        extras = (attn_mask, alibi_slopes, sinks, query_lengths, key_lengths, seed)
        output, lse = _forward(query, key, value, *extras, *options)
        ctx.options = options
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, key, value, *extras, output, lse)
        return output, lse

    @staticmethod
    def backward(
        ctx: Any, grad_output: torch.Tensor | None, grad_lse: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        *operands, output, lse = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        if grad_output is None:
            grad_output = torch.zeros_like(output)
        if torch.is_grad_enabled():
            return (
                *dispatcher.differentiable_gradients(
                    partial(composed.attention, options=ctx.options),
                    operands,
                    (grad_output, grad_lse),
                    wanted[:9],
                ),
                None,
            )
        arguments = (grad_output, grad_lse, output, lse, *operands, *ctx.options)
        gradients: list[torch.Tensor | None] = [None] * len(wanted)
        if wanted[0] or wanted[1] or wanted[2]:
            found = _backward(*arguments, *wanted[:3])
            gradients[:3] = [g if of else None for g, of in zip(found, wanted[:3], strict=True)]
        for place, backward in _backward_of_extras.items():
            if wanted[place]:
                gradient = backward(*arguments).sum_to_size(operands[place].shape)
                gradients[place] = gradient.to(operands[place].dtype)
        return tuple(gradients)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    options: Options,
    enable_gqa: bool,
    extras: Extras,
    return_lse: bool,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """See :func:`fusewire.scaled_dot_product_attention` and :func:`fusewire.varlen_attention`."""
    if torch.is_autocast_enabled("cpu"):
        # The mask as well, as PyTorch's autocast does.
        query, key, value, mask = dispatcher.autocast(query, key, value, extras.attn_mask)
        extras = extras._replace(attn_mask=mask)
    given: dict[str, Any] = {"query": query, "key": key, "value": value, **extras._asdict()}
    names = ("query_lengths", "key_lengths")
    if options.packed:
        names = ("query_offsets", "key_offsets")
        given["query_offsets"] = given.pop("query_lengths")
        given["key_offsets"] = given.pop("key_lengths")
    try:
        tensors.check_types(query=query, key=key, value=value)
        given_rows, stored = query.shape[:-1], query.dtype
        mask = extras.attn_mask
        if mask is not None and tensors.needs_single(mask, stored):
            query, key, value = query.float(), key.float(), value.float()
        if options.packed:
            lead = None
            query = tensors.packed(query, "query")
            key, value = tensors.packed(key, "key"), tensors.packed(value, "value")
        else:
            lead = tensors.leading(query, key, value)
            query = tensors.with_one_batch(query, "query", lead)
            key = tensors.with_one_batch(key, "key", lead)
            value = tensors.with_one_batch(value, "value", lead)
        check_heads(query.shape[1], key.shape[1], enable_gqa)
        real = dispatcher.real_of(query.dtype)
        extras = Extras(
            tensors.bias(mask, lead, query, key),
            tensors.per_head(extras.alibi_slopes, "alibi_slopes", real),
            tensors.per_head(extras.sinks, "sinks", real),
            tensors.whole(extras.query_lengths, names[0]),
            tensors.whole(extras.key_lengths, names[1]),
            None if extras.seed is None else extras.seed.to(query.device),
        )
        output, lse = _dispatch(query, key, value, options, extras, return_lse)
    except (RuntimeError, AttributeError) as error:
        raise dispatcher.as_raised(error, _OPTIONAL, **given) from None
    if lead is not None:
        rows = (*lead, *query.shape[1:3]) if lead else given_rows
        output = output.reshape(*rows, value.shape[-1])
        lse = None if lse is None else lse.reshape(rows)
    if output.dtype != stored:
        output = output.to(stored)
    return (output, lse) if return_lse and lse is not None else output


def _dispatch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    options: Options,
    extras: Extras,
    needs_lse: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Calls the implementation that serves the operands."""
    elsewhere = query.device.type != "cpu" or dispatcher.is_traced()
    served = not elsewhere and dispatcher.is_served(query, dispatcher.STORED)
    # A trace would take what was compared for numbers of its own.
    if not served and not dispatcher.is_traced():
        fit.check(query, key, value, extras, options)
    if elsewhere and not needs_lse and composed.is_plain(query, key, options, extras):
        return _plain(query, key, value, extras.attn_mask, options), None
    if options.dropout_p > 0 and extras.seed is None:
        extras = extras._replace(seed=_drawn(query.device))
    results: tuple[torch.Tensor, torch.Tensor]
    if not served:
        whole = partial(composed.attention, options=options)
        if elsewhere:
            from fusewire.ops.attention import flex

            if flex.is_served(query, key, value, options.dropout_p):
                fused = partial(flex.attention, options=options)
                output, lse = twice.differentiable(fused, whole, (query, key, value, *extras))
                return output, lse
        return whole(query, key, value, *extras)
    if dispatcher.needs_gradient(query, key, value, *extras[:3]):
        results = dispatcher.apply(_Attention, query, key, value, *extras, options)
    else:
        results = _forward(query, key, value, *extras, *options)
    return results


def _drawn(device: torch.device) -> torch.Tensor:
    """A seed from PyTorch's generator."""
    if dispatcher.is_transformed():
        # `vmap` refuses to draw in place, where each row of its batch shall have its own.
        return torch.randint(torch.iinfo(torch.int64).max, (), device=device)
    return torch.empty((), dtype=torch.int64, device=device).random_()


def _plain(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    options: Options,
) -> torch.Tensor:
    """PyTorch's own attention, whose gradients can be differentiated again but for dropout."""
    if options.dropout_p:
        return composed.plain(query, key, value, attn_mask, options)

    def fused(query: Any, key: Any, value: Any, attn_mask: Any) -> list[torch.Tensor]:
        return [composed.plain(query, key, value, attn_mask, options)]

    def whole(query: Any, key: Any, value: Any, attn_mask: Any) -> list[torch.Tensor]:
        extras = Extras(attn_mask)
        return [composed.attention(query, key, value, *extras, options=options)[0]]

    return twice.differentiable(fused, whole, (query, key, value, attn_mask))[0]
