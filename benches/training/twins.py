"""The same language models in plain PyTorch; weights have equal names, so one fills the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusewire.models.language import RecurrentConfig, TransformerConfig


class TwinBlock(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, bias = config.embed_dim, config.bias
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(width, bias=bias)
        self.attention = nn.ModuleDict(
            {
                "in_proj": nn.Linear(width, 3 * width, bias),
                "out_proj": nn.Linear(width, width, bias),
            }
        )
        self.feed_forward_norm = nn.LayerNorm(width, bias=bias)
        self.feed_forward = nn.ModuleDict(
            {
                "expand": nn.Linear(width, 4 * width, bias),
                "contract": nn.Linear(4 * width, width, bias),
            }
        )

    def forward(self, hidden: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        projected = self.attention["in_proj"](self.attention_norm(hidden))
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in projected.split(width, dim=2)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        merged = attended.transpose(1, 2).reshape(batch, length, width)
        hidden = hidden + self.attention["out_proj"](merged)
        expanded = self.feed_forward["expand"](self.feed_forward_norm(hidden))
        return hidden + self.feed_forward["contract"](functional.gelu(expanded, approximate="tanh"))


class TwinTransformer(nn.Module):
    def __init__(self, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.embed_dim)
        self.positions = nn.Embedding(config.context, config.embed_dim)
        self.blocks = nn.ModuleList(TwinBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.embed_dim, bias=config.bias)

    def forward(self, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.embedding(tokens) + self.positions(places)
        for block in self.blocks:
            hidden = block(hidden)
        return functional.linear(self.norm(hidden), self.embedding.weight), state


class TwinRecurrent(nn.Module):
    def __init__(self, config: RecurrentConfig, vocab_size: int) -> None:
        super().__init__()
        kinds = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN, "relu": nn.RNN}
        options = {"nonlinearity": "relu"} if config.cell == "relu" else {}
        self.embedding = nn.Embedding(vocab_size, config.embed_dim)
        self.layers = kinds[config.cell](
            config.embed_dim, config.hidden_size, config.layers, batch_first=True, **options
        )
        self.output_bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, tokens: Tensor, state: object = None) -> tuple[Tensor, object]:
        hidden, state = self.layers(self.embedding(tokens), state)
        return functional.linear(hidden, self.embedding.weight, self.output_bias), state
