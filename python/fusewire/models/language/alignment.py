"""Attention of a recurrent decoder to what its encoder has read: Bahdanau's and Luong's scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fusewire
from fusewire.nn import Linear


class Source:
    """What the encoder has read, and the keys that an attention has made of it.

    Args:
        hidden: the encoder's output, (batch, source_len, width).
        keys: what decoder states are compared with, (batch, source_len, size).
        lengths: tokens of each row that are no padding, (batch); all if None.
    """

    def __init__(self, hidden: Tensor, keys: Tensor, lengths: Tensor | None) -> None:
        self.hidden = hidden
        self.keys = keys
        self.lengths = lengths

    def select(self, rows: Tensor) -> Source:
        """The given rows, in their order."""
        lengths = None if self.lengths is None else self.lengths[rows]
        return Source(self.hidden[rows], self.keys[rows], lengths)

    def normalise(self, scores: Tensor) -> Tensor:
        """The softmax of scores (batch, query_len, source_len) over what is no padding."""
        if self.lengths is not None:
            places = torch.arange(scores.shape[-1], device=scores.device)
            padding = places >= self.lengths[:, None, None]
            scores = scores.masked_fill(padding, -torch.inf)
        return scores.softmax(dim=-1)


class BahdanauAttention(nn.Module):
    r"""Additive attention (Bahdanau et al. 2015).

    .. math:: e_{ts} = v^\top \tanh(W q_t + U k_s), \qquad a_t = \mathrm{softmax}(e_t)

    Args:
        query_size: width of the decoder's state.
        memory_size: width of the encoder's output.
    """

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.query_proj = Linear(query_size, query_size)
        self.key_proj = Linear(memory_size, query_size, bias=False)
        self.energy = Linear(query_size, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """What queries are compared with, once for a whole source."""
        keys: Tensor = self.key_proj(memory)
        return keys

    def weights(self, query: Tensor, source: Source) -> Tensor:
        """Weights of queries (batch, query_len, query_size): (batch, query_len, source_len)."""
        compared = self.query_proj(query)[:, :, None] + source.keys[:, None]
        return source.normalise(self.energy(compared.tanh()).squeeze(-1))

    def forward(self, query: Tensor, source: Source) -> Tensor:
        """The weighted mean of the source for each query, (batch, query_len, memory_size)."""
        return self.weights(query, source) @ source.hidden


class LuongAttention(nn.Module):
    r"""Multiplicative attention, the "general" score (Luong et al. 2015).

    .. math:: e_{ts} = q_t^\top W k_s, \qquad a_t = \mathrm{softmax}(e_t)

    Args:
        query_size: width of the decoder's state.
        memory_size: width of the encoder's output.
    """

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.key_proj = Linear(memory_size, query_size, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """What queries are compared with, once for a whole source."""
        keys: Tensor = self.key_proj(memory)
        return keys

    def weights(self, query: Tensor, source: Source) -> Tensor:
        """Weights of queries (batch, query_len, query_size): (batch, query_len, source_len)."""
        return source.normalise(query @ source.keys.transpose(1, 2))

    def forward(self, query: Tensor, source: Source) -> Tensor:
        """The weighted mean of the source for each query, (batch, query_len, memory_size)."""
        attended = fusewire.scaled_dot_product_attention(
            query[:, None],
            source.keys[:, None],
            source.hidden[:, None],
            scale=1.0,
            key_lengths=source.lengths,
        )
        return attended.squeeze(1)
