"""Batches whose sequences are equally long."""

from __future__ import annotations

import torch

from fusewire.ops.attention import scaled_dot_product_attention

Probabilities = tuple[torch.Tensor, torch.Tensor, None]
"""The output, the logarithms, and no probabilities: no kernel keeps them."""


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    query_lengths: torch.Tensor | None = None,
    key_lengths: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output ``(batch, query_len, heads, value_dim)`` and the logarithms.

    The logarithms are ``(batch, heads, query_len)``; plus infinity where there is no key.
    """
    output, lse = scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        None,
        dropout_p,
        causal,
        softmax_scale,
        enable_gqa=True,
        causal_alignment="bottom_right",
        window=(window_size[0], window_size[1]),
        softcap=softcap or None,
        alibi_slopes=alibi_slopes,
        query_lengths=query_lengths,
        key_lengths=key_lengths,
        return_lse=True,
    )
    return output.transpose(1, 2), lse.masked_fill(lse == -torch.inf, torch.inf)


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,  # noqa: ARG001
    return_attn_probs: bool = False,
) -> torch.Tensor | Probabilities:
    """Attends; see `flash_attn.flash_attn_func`.

    Args:
        q: ``(batch, query_len, heads, head_dim)``.
        k: ``(batch, key_len, kv_heads, head_dim)``; `heads` is a multiple of `kv_heads`.
        v: ``(batch, key_len, kv_heads, value_dim)``.
        dropout_p: Probability with which a weight is dropped; 0 in evaluation.
        softmax_scale: Factor of the scores; ``1 / sqrt(head_dim)`` if None.
        causal: Whether query i sees keys up to ``i + key_len - query_len`` only.
        window_size: Keys that a query sees ``(before, behind)`` that one; -1 is without bound.
        softcap: Bound of the scores; 0 for none.
        alibi_slopes: ``(heads)`` or ``(batch, heads)``, float32: ``slope * |i + key_len -
            query_len - j|`` is taken off the scores.
        deterministic: Without effect: our gradients always are.
        return_attn_probs: Whether to return the logarithms, and None, too.

    Returns:
        ``(batch, query_len, heads, value_dim)``; a query that sees no key gets 0. Asked for, also
        ``log(sum(exp(scores)))``, ``(batch, heads, query_len)``, and None.

    Example:
        >>> import torch
        >>> from fusewire.dropin.flash_attn import flash_attn_func
        >>> q, k = torch.ones(2, 3, 4, 8), torch.ones(2, 5, 2, 8)
        >>> flash_attn_func(q, k, k, causal=True).shape
        torch.Size([2, 3, 4, 8])
    """
    output, lse = attend(
        q,
        k,
        v,
        dropout_p=dropout_p,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=window_size,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
    )
    return (output, lse, None) if return_attn_probs else output


def flash_attn_qkvpacked_func(
    qkv: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor | Probabilities:
    """:func:`flash_attn_func` of ``(batch, length, 3, heads, head_dim)``."""
    q, k, v = qkv.unbind(2)
    return flash_attn_func(
        q,
        k,
        v,
        dropout_p,
        softmax_scale,
        causal,
        window_size,
        softcap,
        alibi_slopes,
        deterministic,
        return_attn_probs,
    )


def flash_attn_kvpacked_func(
    q: torch.Tensor,
    kv: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor | Probabilities:
    """:func:`flash_attn_func`, keys and values ``(batch, key_len, 2, kv_heads, head_dim)``."""
    k, v = kv.unbind(2)
    return flash_attn_func(
        q,
        k,
        v,
        dropout_p,
        softmax_scale,
        causal,
        window_size,
        softcap,
        alibi_slopes,
        deterministic,
        return_attn_probs,
    )
