"""The inference fast path of `torch.nn.MultiheadAttention` and `torch.nn.TransformerEncoderLayer`.

Without gradients and in evaluation these modules call one operator each, which never passes
`scaled_dot_product_attention`. Nested tensors, which `torch.nn.TransformerEncoder` makes of padded
batches there, are served as padded ones with lengths.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn import functional

from fusewire.nn import nested
from fusewire.ops.attention import scaled_dot_product_attention
from fusewire.ops.linear import linear

_MASKED_KEYS = 1
"""The `mask_type` of a mask that is ``(batch, key_len)``."""


class _Projections(NamedTuple):
    """The parameters of a `torch.nn.MultiheadAttention`."""

    qkv_weight: torch.Tensor
    qkv_bias: torch.Tensor
    out_weight: torch.Tensor
    out_bias: torch.Tensor


REPLACED = [
    (f"aten::{name}", key)
    for key in ("CPU", "NestedTensorCPU")
    for name in ("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
]
"""The operators that have implementations of ours, and for what."""


def replace(library: torch.library.Library) -> None:
    """Registers our implementations with a library of the namespace `aten`."""
    for name, key in REPLACED:
        if name.endswith("attention"):
            original = torch.library.get_kernel(name, key)
            library.impl(name, _Attention(original), key, with_keyset=True)
        else:
            library.impl(name, _encoder_layer, key)


class _Attention:
    """`aten::_native_multi_head_attention`: PyTorch's own where the weights are asked for."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def __call__(
        self,
        keys: torch.DispatchKeySet,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        embed_dim: int,
        num_head: int,
        qkv_weight: torch.Tensor,
        qkv_bias: torch.Tensor,
        proj_weight: torch.Tensor,
        proj_bias: torch.Tensor,
        mask: torch.Tensor | None = None,
        need_weights: bool = True,
        average_attn_weights: bool = True,
        mask_type: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        parameters = _Projections(qkv_weight, qkv_bias, proj_weight, proj_bias)
        if need_weights or query is not key or key is not value:
            results: tuple[torch.Tensor, torch.Tensor] = self._original.call_boxed(
                keys,
                query,
                key,
                value,
                embed_dim,
                num_head,
                *parameters,
                mask,
                need_weights,
                average_attn_weights,
                mask_type,
            )
            return results
        padded, exists = nested.pad(query)
        output = _attend(padded, num_head, parameters, mask, mask_type, exists)
        return nested.unpad(output, exists), None


def _encoder_layer(
    src: torch.Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: torch.Tensor,
    qkv_bias: torch.Tensor,
    proj_weight: torch.Tensor,
    proj_bias: torch.Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: torch.Tensor,
    norm_bias_1: torch.Tensor,
    norm_weight_2: torch.Tensor,
    norm_bias_2: torch.Tensor,
    ffn_weight_1: torch.Tensor,
    ffn_bias_1: torch.Tensor,
    ffn_weight_2: torch.Tensor,
    ffn_bias_2: torch.Tensor,
    mask: torch.Tensor | None = None,
    mask_type: int | None = None,
) -> torch.Tensor:
    """`aten::_transformer_encoder_layer_fwd`."""
    parameters = _Projections(qkv_weight, qkv_bias, proj_weight, proj_bias)

    def norm_1(x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, (embed_dim,), norm_weight_1, norm_bias_1, eps)

    def norm_2(x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, (embed_dim,), norm_weight_2, norm_bias_2, eps)

    def feed_forward(x: torch.Tensor) -> torch.Tensor:
        inner = linear(x, ffn_weight_1, ffn_bias_1, "gelu" if use_gelu else "relu")
        return linear(inner, ffn_weight_2, ffn_bias_2)

    x, exists = nested.pad(src)
    if norm_first:
        x = x + _attend(norm_1(x), num_heads, parameters, mask, mask_type, exists)
        x = x + feed_forward(norm_2(x))
    else:
        x = norm_1(x + _attend(x, num_heads, parameters, mask, mask_type, exists))
        x = norm_2(x + feed_forward(x))
    return nested.unpad(x, exists)


def _attend(
    x: torch.Tensor,
    heads: int,
    parameters: _Projections,
    mask: torch.Tensor | None,
    mask_type: int | None,
    exists: torch.Tensor | None,
) -> torch.Tensor:
    """Self-attention with its projections of ``(batch, length, embed_dim)``."""
    projected = linear(x, parameters.qkv_weight, parameters.qkv_bias)
    query, key, value = projected.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    if mask is not None:
        if mask_type == _MASKED_KEYS:
            mask = mask[:, None, None, :]
        if mask.dtype == torch.bool:
            mask = ~mask  # PyTorch's modules mark what is hidden.
    lengths = None if exists is None else exists.sum(1)
    output = scaled_dot_product_attention(query, key, value, mask, key_lengths=lengths)
    return linear(output.transpose(1, 2).flatten(2), parameters.out_weight, parameters.out_bias)
