"""Batches whose sequences lie behind each other, each of its own length."""

from __future__ import annotations

import re

import torch

from fusewire.dropin.flash_attn.padded import (
    GROUPED,
    Probabilities,
    attend,
    check,
    check_fit,
    score_options,
    unpacked,
)
from fusewire.dropin.flash_attn.pages import check_table, known_pages
from fusewire.ops.attention import varlen_attention


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,  # noqa: ARG001
    max_seqlen_k: int,  # noqa: ARG001
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,  # noqa: ARG001
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
) -> torch.Tensor | Probabilities:
    """Attends within sequences; see `flash_attn.flash_attn_varlen_func`.

    Args:
        q: ``(total_queries, heads, head_dim)``.
        k: ``(total_keys, kv_heads, head_dim)``, or with `block_table` pages, ``(pages, page_len,
            kv_heads, head_dim)``.
        v: Like `k`, with value_dim.
        cu_seqlens_q: ``(batch + 1)``, int32: where each sequence's queries begin, and the total.
        cu_seqlens_k: ``(batch + 1)``, the same for keys.
        max_seqlen_q: Queries of the longest sequence; without effect.
        max_seqlen_k: Keys of the longest sequence; without effect.
        dropout_p: As for :func:`flash_attn_func`; so are the others that are not told here.
        softmax_scale: See there.
        causal: See there, with the lengths of each sequence.
        window_size: See there.
        softcap: See there.
        alibi_slopes: See there.
        deterministic: See there.
        return_attn_probs: See there.
        block_table: ``(batch, pages of the longest)``, int32: the pages of each sequence.

    Returns:
        ``(total_queries, heads, value_dim)``; asked for, also the logarithms ``(heads,
        total_queries)``, and a tensor without numbers.

    Example:
        >>> import torch
        >>> from fusewire.dropin.flash_attn import flash_attn_varlen_func
        >>> q = torch.ones(7, 2, 4)
        >>> starts = torch.tensor([0, 3, 7], dtype=torch.int32)
        >>> flash_attn_varlen_func(q, q, q, starts, starts, 4, 4, causal=True).shape
        torch.Size([7, 2, 4])
    """
    check("(batch + 1)", cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)
    if block_table is not None:
        k, v = _of_pages(k, v, block_table, cu_seqlens_k)
    check("(total, heads, head_dim)", q=q, k=k, v=v)
    check_fit(q, k=k, v=v)
    options = score_options(
        len(cu_seqlens_q) - 1,
        q.shape[1],
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=window_size,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        dropout_p=dropout_p,
    )
    operands = (q, k, v, cu_seqlens_q, cu_seqlens_k)
    try:
        output, lse = attend(
            varlen_attention, *operands, return_lse=return_attn_probs, **GROUPED, **options
        )
    except (TypeError, ValueError) as error:
        raise _told_of(error, query_offsets="cu_seqlens_q", key_offsets="cu_seqlens_k") from None
    return output if lse is None else (output, lse, q.new_empty(0))


def _told_of(error: Exception, **names: str) -> Exception:
    """The same failure, told of the arguments that were given here."""
    told = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), str(error))
    return type(error)(told)


def _of_pages(
    k: torch.Tensor, v: torch.Tensor, block_table: torch.Tensor, starts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The keys and values of all sequences, behind each other."""
    check("(pages, page_len, kv_heads, head_dim)", k=k, v=v)
    lengths = starts.diff()
    check_table(block_table, len(lengths))
    room = block_table.shape[1] * k.shape[1]
    longest = int(lengths.max()) if len(lengths) else 0
    if longest > room:
        raise ValueError(
            f"block_table has room for {room} keys of each sequence, but cu_seqlens_k has one of "
            f"{longest}"
        )
    table = known_pages(block_table, lengths, k)
    held = torch.arange(room, device=k.device) < lengths[:, None]
    return k[table].flatten(1, 2)[held], v[table].flatten(1, 2)[held]


def flash_attn_varlen_qkvpacked_func(
    qkv: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor | Probabilities:
    """:func:`flash_attn_varlen_func` of ``(total, 3, heads, head_dim)``."""
    q, k, v = unpacked("qkv", qkv, "(total, 3, heads, head_dim)", 3)
    try:
        return flash_attn_varlen_func(
            q,
            k,
            v,
            cu_seqlens,
            cu_seqlens,
            max_seqlen,
            max_seqlen,
            dropout_p,
            softmax_scale,
            causal,
            window_size,
            softcap,
            alibi_slopes,
            deterministic,
            return_attn_probs,
        )
    except (TypeError, ValueError) as error:
        raise _told_of(error, cu_seqlens_q="cu_seqlens", q="qkv") from None


def flash_attn_varlen_kvpacked_func(
    q: torch.Tensor,
    kv: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor | Probabilities:
    """:func:`flash_attn_varlen_func` with keys and values in ``(total, 2, kv_heads, head_dim)``."""
    k, v = unpacked("kv", kv, "(total, 2, kv_heads, head_dim)", 2)
    return flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        dropout_p,
        softmax_scale,
        causal,
        window_size,
        softcap,
        alibi_slopes,
        deterministic,
        return_attn_probs,
    )
