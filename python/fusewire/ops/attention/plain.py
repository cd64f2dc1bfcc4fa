"""Plain attention of plain tensors, past PyTorch's dispatcher.

What lies between Python and a kernel costs more than attention of a few short sequences: checks of
a dozen options, and PyTorch's reading of as many arguments. Where nobody waits in the dispatcher
(no mode, transform, autocast or tracing) the extension module takes tensors from Python itself.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fusewire import _native
from fusewire.ops import dispatcher

_wants_gradients = torch.is_grad_enabled
_PLAIN = dispatcher.PLAIN


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        options: tuple[bool, float | None, bool],
    ) -> torch.Tensor:
        # By name and position: a star would cost a microsecond.
        is_causal, scale, enable_gqa = options
        results = _native.attend(query, key, value, is_causal, scale, enable_gqa, True)
        if results is None:
            raise dispatcher.NotServedError
        output, lse = results
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.options = options
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, lse = ctx.saved_tensors
        is_causal, scale, _ = ctx.options
        of_query, of_key, of_value, _ = ctx.needs_input_grad
        wanted = (of_query, of_key, of_value)
        if torch.is_grad_enabled() or not dispatcher.takes_gradient(grad_output):
            again = dispatcher.differentiable_gradients(
                partial(_by_dispatcher, is_causal=is_causal, scale=scale),
                (query, key, value),
                (grad_output,),
                wanted,
            )
            return (*again, None)
        gradients: Any = _native.attend_backward(
            grad_output, query, key, value, output, lse, is_causal, scale, wanted
        )
        grad_query, grad_key, grad_value = gradients
        return (
            grad_query if of_query else None,
            grad_key if of_key else None,
            grad_value if of_value else None,
            None,
        )


def _by_dispatcher(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    is_causal: bool,
    scale: float | None,
) -> torch.Tensor:
    from fusewire.ops.attention import scaled_dot_product_attention

    # What came here came without autocast; whoever asks for the logarithms is not served here.
    with torch.autocast("cpu", enabled=False):
        return scaled_dot_product_attention(
            query, key, value, None, 0.0, is_causal, scale, True, return_lse=True
        )[0]


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> torch.Tensor | None:
    """The output, or None where the dispatcher must see the call or say what is wrong with it."""
    if (
        type(query) not in _PLAIN
        or type(key) not in _PLAIN
        or type(value) not in _PLAIN
        or dispatcher.is_watched()
    ):
        return None
    if _wants_gradients() and (query.requires_grad or key.requires_grad or value.requires_grad):
        try:
            # As one argument, because a Function takes 0.3 us to look at each.
            options = (is_causal, scale, enable_gqa)
            output: torch.Tensor = _Attention.apply(query, key, value, options)
        except (dispatcher.NotServedError, ValueError, TypeError):
            return None
        return output
    try:
        results = _native.attend(query, key, value, is_causal, scale, enable_gqa, False)
    except (ValueError, TypeError):
        return None
    return None if results is None else results[0]
