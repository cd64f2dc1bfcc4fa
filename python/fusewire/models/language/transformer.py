"""Decoder-only Transformer: pre-norm blocks, learned positions, weights tied to the embedding.

Shape letters in comments: B batch, T query_len, S key_len, H heads, K kv_heads, D head_dim,
E embed_dim, V vocab_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import fusewire
from fusewire.errors import InputError
from fusewire.nn import Linear


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a decoder-only Transformer.

    Attributes:
        context: most tokens the model sees at once; the number of learned positions.
        layers: blocks of attention and feed-forward.
        heads: query heads; ``embed_dim`` is split evenly among them.
        embed_dim: width of the residual stream.
        kv_heads: key and value heads, a divisor of ``heads``; ``None`` means as many as heads.
        feed_forward: hidden width of the feed-forward, in multiples of ``embed_dim``.
        dropout: probability of dropping a unit of the embedding and of each branch's output.
    """

    context: int = 128
    layers: int = 4
    heads: int = 4
    embed_dim: int = 128
    kv_heads: int | None = None
    feed_forward: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("context", "layers", "heads", "embed_dim", "feed_forward"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.embed_dim % self.heads:
            raise InputError(
                f"embed_dim must be a multiple of heads, got {self.embed_dim} and {self.heads}"
            )
        if self.kv_heads is not None and (self.kv_heads < 1 or self.heads % self.kv_heads):
            raise InputError(
                f"kv_heads must be a divisor of heads, got {self.kv_heads} and {self.heads}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout must be in [0, 1), got {self.dropout}")


class KeyValueCache:
    """Keys and values of the tokens read so far, for every layer, in buffers of the full context.

    Attributes:
        length: tokens held.
    """

    def __init__(self, shape: tuple[int, int, int, int, int], like: Tensor) -> None:
        """Makes room of (layers, batch, kv_heads, context, head_dim), dtype and device as like."""
        self._keys = like.new_empty(shape)
        self._values = like.new_empty(shape)
        self.length = 0

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Writes one layer's new keys and values after the held ones; returns all of them.

        The length moves with ``advance``, once every layer has written.
        """
        end = self.length + key.shape[-2]
        self._keys[layer, :, :, self.length : end] = key
        self._values[layer, :, :, self.length : end] = value
        return self._keys[layer, :, :, :end], self._values[layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        """Counts ``tokens`` more tokens as held."""
        self.length += tokens


class CausalSelfAttention(nn.Module):
    """Multi-head attention of every token to itself and the tokens before it."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = config.heads
        self.kv_heads = config.kv_heads or config.heads
        self.head_dim = config.embed_dim // config.heads
        self.in_proj = Linear(config.embed_dim, (self.heads + 2 * self.kv_heads) * self.head_dim)
        self.out_proj = Linear(config.embed_dim, config.embed_dim)

    def forward(self, hidden: Tensor, cache: KeyValueCache | None) -> Tensor:
        """Mixes (B, T, E) over tokens; with a cache, also over those before."""
        batch, query_len, embed_dim = hidden.shape
        projected = self.in_proj(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        query, key, value = projected.split([self.heads, self.kv_heads, self.kv_heads], dim=1)

        past = 0 if cache is None else cache.length
        if cache is not None:
            key, value = cache.append(self.layer, key, value)  # (B, K, S, D)

        attended = fusewire.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=_continuation_mask(query_len, past, query.device),
            is_causal=past == 0,
            enable_gqa=self.kv_heads != self.heads,
        )  # (B, H, T, D)
        merged = attended.transpose(1, 2).reshape(batch, query_len, embed_dim)
        output: Tensor = self.out_proj(merged)
        return output


def _continuation_mask(query_len: int, past: int, device: torch.device) -> Tensor | None:
    """Says which keys several new tokens may see behind ``past`` cached ones, if it needs saying.

    Without a past ``is_causal`` says it, and a single new token sees every key.
    """
    if past == 0 or query_len == 1:
        return None
    return torch.ones(query_len, past + query_len, dtype=torch.bool, device=device).tril(past)


class Block(nn.Module):
    """One residual block: attention, then a feed-forward with GELU, each behind a LayerNorm."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        width = config.feed_forward * config.embed_dim
        self.attention_norm = nn.LayerNorm(config.embed_dim)
        self.attention = CausalSelfAttention(config, layer)
        self.feed_forward_norm = nn.LayerNorm(config.embed_dim)
        self.expand = Linear(config.embed_dim, width)
        self.activation = nn.GELU(approximate="tanh")
        self.contract = Linear(width, config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, cache: KeyValueCache | None) -> Tensor:
        """Adds both branches to the residual stream (B, T, E)."""
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), cache))
        expanded = self.activation(self.expand(self.feed_forward_norm(hidden)))
        result: Tensor = hidden + self.dropout(self.contract(expanded))
        return result


class Transformer(nn.Module):
    r"""Decoder-only Transformer language model.

    .. math:: p(x_{t+1} \mid x_{\le t}) = \mathrm{softmax}(W_e\,\mathrm{LayerNorm}(h_t))

    with :math:`W_e` the embedding itself: one parameter used twice, so that tied weights cannot
    come apart when they are saved and loaded.

    Args:
        config: sizes.
        vocab_size: number of token ids.

    Example:
        >>> import torch
        >>> from fusewire.models.language import Transformer, TransformerConfig
        >>> model = Transformer(TransformerConfig(context=8, layers=1, heads=2, embed_dim=16), 10)
        >>> logits, _ = model(torch.tensor([[1, 2, 3]]))
        >>> logits.shape
        torch.Size([1, 3, 10])
    """

    def __init__(self, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, config.embed_dim)
        self.positions = nn.Embedding(config.context, config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = nn.LayerNorm(config.embed_dim)
        self._initialise()

    @property
    def window(self) -> int:
        """Most tokens that the model sees at once."""
        return self.config.context

    def initial_state(self, batch: int) -> KeyValueCache:
        """An empty cache for ``batch`` sequences; pass it to ``forward`` with each new piece."""
        kv_heads = self.config.kv_heads or self.config.heads
        head_dim = self.config.embed_dim // self.config.heads
        return KeyValueCache(
            (self.config.layers, batch, kv_heads, self.config.context, head_dim),
            self.embedding.weight,
        )

    def forward(
        self, tokens: Tensor, state: KeyValueCache | None = None
    ) -> tuple[Tensor, KeyValueCache | None]:
        """Reads tokens and scores what may follow each of them.

        Args:
            tokens: token ids, (batch, query_len).
            state: cache of the tokens before these, from ``initial_state`` or the last call. It
                is extended in place. ``None``: the tokens stand at the start, nothing is kept.

        Returns:
            Logits of the next token, (batch, query_len, vocab_size), and the state.

        Raises:
            ValueError: if past and new tokens together exceed the context.
        """
        query_len = tokens.shape[1]
        past = 0 if state is None else state.length
        if past + query_len > self.config.context:
            raise ValueError(
                f"the model sees at most {self.config.context} tokens at once, "
                f"got {past} in the cache and {query_len} new ones"
            )
        positions = torch.arange(past, past + query_len, device=tokens.device)
        hidden = self.dropout(self.embedding(tokens) + self.positions(positions))
        for block in self.blocks:
            hidden = block(hidden, state)
        if state is not None:
            state.advance(query_len)
        return fusewire.linear(self.norm(hidden), self.embedding.weight), state

    def _initialise(self) -> None:
        """Normal weights of 0.02, the last layer of each branch shrunk by the number of branches.

        GPT-2's rule: it keeps the variance of the residual stream independent of depth.
        """
        branches = 2 * self.config.layers
        for name, parameter in self.named_parameters():
            if name.endswith(("out_proj.weight", "contract.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(branches))
            elif parameter.dim() >= 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
