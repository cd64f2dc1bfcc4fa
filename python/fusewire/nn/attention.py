"""Multi-head attention as a module."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from fusewire.nn import nested
from fusewire.nn.symbolic import is_symbolic, recorded, refuse_script
from fusewire.ops.attention import scaled_dot_product_attention
from fusewire.ops.dispatcher import is_traced


class MultiheadAttention(torch.nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention`, computed by :func:`fusewire.scaled_dot_product_attention`.

    Arguments, parameters and state_dict are those of the class of `torch.nn`. Asked for the weights
    (``need_weights=True``, which needs all of them in memory) it runs as that class does. A query
    whose keys are all masked gets 0 from the heads, where that class gives NaN.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> layer = fw.nn.MultiheadAttention(embed_dim=8, num_heads=2, batch_first=True)
        >>> x = torch.ones(3, 5, 8)
        >>> output, _ = layer(x, x, x, need_weights=False)
        >>> output.shape
        torch.Size([3, 5, 8])
    """

    __prepare_scriptable__ = refuse_script

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends; see `torch.nn.MultiheadAttention.forward`.

        Args:
            query: ``(query_len, batch, embed_dim)``, or ``(batch, query_len, embed_dim)`` with
                `batch_first`, or without a batch ``(query_len, embed_dim)``.
            key: ``(key_len, batch, kdim)``, laid out like `query`.
            value: ``(key_len, batch, vdim)``, laid out like `query`.
            key_padding_mask: ``(batch, key_len)``; bool (True where a key is to be ignored) or
                floating (added to the scores).
            need_weights: Whether to return the weights too.
            attn_mask: ``(query_len, key_len)`` or ``(batch * heads, query_len, key_len)``; bool
                (True where a query must not attend) or floating (added to the scores).
            average_attn_weights: Whether the weights are averaged over the heads.
            is_causal: Says that `attn_mask` is causal, which lets it go unread. Then, as in
                `torch.nn`, what `add_bias_kv` and `add_zero_attn` append lies behind all keys, so
                that query i sees it only where ``i >= key_len``; with the weights or with
                `key_padding_mask` the mask is read, and all queries see it.

        Returns:
            The output, shaped like `query`, and the weights or None.
        """
        if is_symbolic(query):
            others = (key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal)
            return recorded(self, query, key, value, *others)  # type: ignore[no-any-return]
        masked = attn_mask is not None or key_padding_mask is not None
        if query.is_nested and query is key and key is value and not (need_weights or masked):
            rows, exists = nested.pad(query)
            hidden = None if exists is None else ~exists
            output, _ = self(rows, rows, rows, key_padding_mask=hidden, need_weights=False)
            return nested.unpad(output, exists), None
        said_too_little = is_causal and attn_mask is None
        served = not (need_weights or said_too_little)
        if not (served and self._fit(query, key, value, key_padding_mask, attn_mask)):
            # It has weights, and words for what does not fit.
            return super().forward(
                query,
                key,
                value,
                key_padding_mask,
                need_weights,
                attn_mask,
                average_attn_weights,
                is_causal,
            )
        batched = query.dim() == 3
        if not batched:
            query, key, value = (operand.unsqueeze(0) for operand in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (operand.transpose(0, 1) for operand in (query, key, value))
        appended = self.bias_k is not None or self.add_zero_attn
        is_causal = is_causal and key_padding_mask is None
        if is_causal:
            attn_mask = None
        mask = self._mask(attn_mask, key_padding_mask, query.shape[0], query.dtype)
        query, key, value = (self._heads(each) for each in self._project(query, key, value))
        if appended:
            key, value = self._append(key, self.bias_k), self._append(value, self.bias_v)
            if mask is not None:
                missing = (0, key.shape[2] - mask.shape[-1])
                mask = functional.pad(mask, missing, value=mask.dtype == torch.bool)
        output = scaled_dot_product_attention(
            query,
            key,
            value,
            mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
        )
        output = self.out_proj(output.transpose(1, 2).flatten(2))
        if not batched:
            return output.squeeze(0), None
        return output if self.batch_first else output.transpose(0, 1), None

    def _fit(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None,
        attn_mask: torch.Tensor | None,
    ) -> bool:
        """Whether operands have the shapes that the documentation asks for."""
        if query.is_nested or key.is_nested or value.is_nested:
            return False
        if not query.dim() == key.dim() == value.dim() or query.dim() not in (2, 3):
            return False
        if is_traced():
            return True  # Lengths are recorded there, and none is known.
        batched = query.dim() == 3
        time = 1 if batched and self.batch_first else 0
        query_len, key_len = query.shape[time], key.shape[time]
        batch = [query.shape[1 - time]] if batched else []
        if key.shape[:-1] != value.shape[:-1] or (batched and [key.shape[1 - time]] != batch):
            return False
        widths = (query.shape[-1], key.shape[-1], value.shape[-1])
        if widths != (self.embed_dim, self.kdim, self.vdim):
            return False
        if key_padding_mask is not None and key_padding_mask.shape != (*batch, key_len):
            return False
        if attn_mask is not None:
            scores = (query_len, key_len)
            of_heads = (math.prod(batch) * self.num_heads, *scores)
            if attn_mask.shape not in (scores, of_heads):
                return False
        masks = (mask for mask in (key_padding_mask, attn_mask) if mask is not None)
        return all(mask.dtype == torch.bool or mask.is_floating_point() for mask in masks)

    def _project(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values, ``(batch, length, embed_dim)``."""
        if self._qkv_same_embed_dim:
            if query is key and key is value:
                return functional.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return tuple(
            functional.linear(operand, weight, bias)
            for operand, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        """``(batch, length, embed_dim)`` as ``(batch, heads, length, head_dim)``."""
        batch, length, _ = projected.shape
        return projected.view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)

    def _append(self, heads: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Keys or values with those behind them that every query attends to."""
        batch, _, _, head_dim = heads.shape
        rows = [heads]
        if bias is not None:
            rows.append(self._heads(bias.to(heads.dtype)).expand(batch, -1, -1, -1))
        if self.add_zero_attn:
            rows.append(heads.new_zeros(batch, self.num_heads, 1, head_dim))
        return torch.cat(rows, 2)

    def _mask(
        self,
        attn_mask: torch.Tensor | None,
        key_padding_mask: torch.Tensor | None,
        batch: int,
        dtype: torch.dtype,
    ) -> torch.Tensor | None:
        """Both masks as one, broadcastable to ``(batch, heads, query_len, key_len)``."""
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask.reshape(batch, self.num_heads, *attn_mask.shape[1:])
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask[:, None, None, :]
        given = [mask for mask in (attn_mask, key_padding_mask) if mask is not None]
        if not given:
            return None
        if all(mask.dtype == torch.bool for mask in given):
            return ~(given[0] | given[-1])
        zero = torch.zeros((), dtype=dtype, device=given[0].device)
        added = [
            zero.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask
            for mask in given
        ]
        return added[0] if len(added) == 1 else added[0] + added[1]
