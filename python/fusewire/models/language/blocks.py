"""What every Transformer is made of: attention, feed-forward, and the stack of both.

Shape letters in comments: B batch, T query_len, S key_len, H heads, K kv_heads, D head_dim,
E embed_dim, V vocab_size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import fusewire
from fusewire.models.dense import Dense, activated, dense
from fusewire.models.language.layout import Layout
from fusewire.models.language.positions import AddedPositions, RotaryPositions, rotate
from fusewire.models.language.transformer_config import TransformerConfig

Rotation = tuple[Tensor, Tensor]

_DEVIATION = 0.02  # of weights at first


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to tokens of the same sequence."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.width_of_head
        self.heads = [config.heads, config.key_value_heads, config.key_value_heads]
        width = sum(self.heads) * self.head_dim
        self.in_proj = Dense(config.embed_dim, width, config.bias)
        self.out_proj = Dense(config.heads * self.head_dim, config.embed_dim, config.bias)

    def forward(self, hidden: Tensor, layout: Layout, rotation: Rotation | None) -> Tensor:
        """Mixes (B, T, E) over the tokens that the layout lets see each other."""
        projected = self.in_proj(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        query, key, value = projected.split(self.heads, dim=1)  # (B, H or K, T, D)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        attended = layout.attend(self.layer, query, key, value)
        output: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return output


class Memory:
    """What an encoder has read, with each layer's keys and values once they have been computed.

    Args:
        hidden: the encoder's output, (B, S, E of the encoder).
        lengths: tokens of each row that are no padding, (B); all if None.
    """

    def __init__(self, hidden: Tensor, lengths: Tensor | None) -> None:
        self.hidden = hidden
        self.lengths = lengths
        self.projected: dict[int, tuple[Tensor, Tensor]] = {}

    def select(self, rows: Tensor) -> Memory:
        """The given rows, in their order."""
        selected = Memory(self.hidden[rows], None if self.lengths is None else self.lengths[rows])
        selected.projected = {
            layer: (key[rows], value[rows]) for layer, (key, value) in self.projected.items()
        }
        return selected


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to what an encoder has read."""

    def __init__(self, config: TransformerConfig, layer: int, memory_dim: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.width_of_head
        width = config.heads * self.head_dim
        self.query_proj = Dense(config.embed_dim, width, config.bias)
        self.memory_proj = Dense(
            memory_dim, 2 * config.key_value_heads * self.head_dim, config.bias
        )
        self.out_proj = Dense(width, config.embed_dim, config.bias)

    def forward(self, hidden: Tensor, memory: Memory) -> Tensor:
        """Adds to (B, T, E) what the memory holds for it."""
        query = self._heads(self.query_proj(hidden))
        key, value = self._keys_and_values(memory)
        attended = fusewire.scaled_dot_product_attention(
            query, key, value, enable_gqa=True, key_lengths=memory.lengths
        )
        output: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return output

    def weights(self, hidden: Tensor, memory: Memory) -> Tensor:
        """How much each head attends to each token of the memory, (B, H, T, S)."""
        query = self._heads(self.query_proj(hidden))
        key, _ = self._keys_and_values(memory)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_dim)
        if memory.lengths is not None:
            places = torch.arange(key.shape[2], device=key.device)
            padding = places >= memory.lengths[:, None, None, None]
            scores = scores.masked_fill(padding, -torch.inf)
        return scores.softmax(dim=-1)

    def _keys_and_values(self, memory: Memory) -> tuple[Tensor, Tensor]:
        if self.layer not in memory.projected:
            key, value = self._heads(self.memory_proj(memory.hidden)).chunk(2, dim=1)
            memory.projected[self.layer] = key, value
        return memory.projected[self.layer]

    def _heads(self, projected: Tensor) -> Tensor:
        """(B, T, heads · D) as (B, heads, T, D)."""
        heads: Tensor = projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # type: ignore[no-untyped-call]
        return heads


class FeedForward(nn.Module):
    """Two linear layers with GELU between them, or with SwiGLU: one half gates the other."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width_of_feed_forward
        self.gated = config.activation == "swiglu"
        self.expand = Dense(
            config.embed_dim,
            2 * width if self.gated else width,
            config.bias,
            activation=None if self.gated else "gelu_tanh",
        )
        self.contract = Dense(width, config.embed_dim, config.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transforms each token of (B, T, E) by itself."""
        expanded = self.expand(hidden)
        if self.gated:
            gate, up = expanded.chunk(2, dim=-1)
            expanded = activated(gate, "silu") * up
        output: Tensor = self.contract(expanded)
        return output


class Block(nn.Module):
    """One residual block: attention, perhaps to a memory too, then a feed-forward; pre-norm."""

    def __init__(self, config: TransformerConfig, layer: int, memory_dim: int | None) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = SelfAttention(config, layer)
        if memory_dim is not None:
            self.cross_attention_norm = make_norm(config)
            self.cross_attention = CrossAttention(config, layer, memory_dim)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, hidden: Tensor, layout: Layout, rotation: Rotation | None, memory: Memory | None
    ) -> Tensor:
        """Adds each branch to the residual stream (B, T, E)."""
        attended = self.attention(self.attention_norm(hidden), layout, rotation)
        hidden = hidden + self.dropout(attended)
        if memory is not None:
            attended = self.cross_attention(self.cross_attention_norm(hidden), memory)
            hidden = hidden + self.dropout(attended)
        result: Tensor = hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))
        return result


class Stack(nn.Module):
    """Embedding, positions, blocks and a last norm; an output layer if the embedding is not it.

    Args:
        config: sizes and styles.
        vocab_size: number of token ids.
        memory_dim: width of the memory that each block attends to; ``None`` for none.
    """

    def __init__(
        self, config: TransformerConfig, vocab_size: int, memory_dim: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, config.embed_dim)
        self.positions = (RotaryPositions if config.positions == "rotary" else AddedPositions)(
            config
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config, layer, memory_dim) for layer in range(config.layers)
        )
        self.norm = make_norm(config)
        if not config.tied:
            self.output = Dense(config.embed_dim, vocab_size, bias=False)
        self._initialise()

    @property
    def window(self) -> int:
        """Most tokens that the model sees at once."""
        return self.config.context

    @property
    def feature_dim(self) -> int:
        """Width of ``read``'s output."""
        return self.config.embed_dim

    def read(self, tokens: Tensor, layout: Layout, memory: Memory | None = None) -> Tensor:
        """What the last block says of each token (B, T), normalised: (B, T, E)."""
        positions = self.positions(layout.places)
        hidden, rotation = self.embedding(tokens), None
        if isinstance(self.positions, RotaryPositions):
            rotation = positions
        else:
            # Sinusoids as large as learned places are at first: tokens would drown in larger ones.
            fixed = self.config.positions == "sinusoidal"
            hidden = hidden + (positions * (_DEVIATION * math.sqrt(2)) if fixed else positions)
        hidden = self.dropout(hidden)
        for block in self.blocks:
            hidden = block(hidden, layout, rotation, memory)
        normalised: Tensor = self.norm(hidden)
        return normalised

    def score(self, hidden: Tensor) -> Tensor:
        """Logits of every token for what ``read`` gave: (B, T, V)."""
        if self.config.tied:
            return dense(hidden, self.embedding.weight)
        logits: Tensor = self.output(hidden)
        return logits

    def _require_context(self, past: int, tokens: Tensor) -> None:
        if past + tokens.shape[1] > self.config.context:
            raise ValueError(
                f"the model sees at most {self.config.context} tokens at once, "
                f"got {past} in the cache and {tokens.shape[1]} new ones"
            )

    def _initialise(self) -> None:
        """Normal weights of 0.02, the last layer of each branch shrunk by the number of branches.

        GPT-2's rule: it keeps the variance of the residual stream independent of depth.
        """
        branches = 2 * self.config.layers
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            if name.endswith(("out_proj.weight", "contract.weight")):
                nn.init.normal_(parameter, std=_DEVIATION / math.sqrt(branches))
            elif parameter.dim() >= 2:
                nn.init.normal_(parameter, std=_DEVIATION)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)


def make_norm(config: TransformerConfig) -> nn.Module:
    """The norm of a style."""
    if config.norm == "rms":
        return nn.RMSNorm(config.embed_dim, eps=config.norm_epsilon)
    return nn.LayerNorm(config.embed_dim, eps=config.norm_epsilon, bias=config.bias)
