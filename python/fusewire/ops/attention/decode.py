"""Attention of a few queries to a cache, on tensors: one operator, for inference only.

Imported by the first call that takes this path.
"""

from __future__ import annotations

import torch

from fusewire.ops import dispatcher


def _fake(
    query: torch.Tensor, _key: torch.Tensor, value: torch.Tensor, *_: object
) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        query.new_empty(*query.shape[:-1], value.shape[-1]),
        query.new_empty(query.shape[:-1], dtype=dispatcher.real_of(query.dtype)),
    )


attention = dispatcher.declare(
    "decode_attention",
    "(Tensor query, Tensor key, Tensor value, Tensor? block_table, Tensor? key_lengths, "
    "Tensor? alibi_slopes, Tensor? sinks, float scale, float softcap, int left, int right, "
    "bool bottom_right) -> (Tensor, Tensor)",
    _fake,
)
"""Output and logarithms of queries, ``(batch, heads, query_len, head_dim)``, against keys.

Those are ``(batch, kv_heads, key_len, head_dim)``, or with a block table ``(num_blocks, block_size,
kv_heads, head_dim)``.
"""
