"""Recurrent language model: embedding, Elman, LSTM or GRU layers, next-token logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

import fusewire
from fusewire.errors import InputError
from fusewire.nn import GRU, LSTM, RNN, Linear

Cell: TypeAlias = Literal["rnn", "lstm", "gru"]

RecurrentState: TypeAlias = Tensor | tuple[Tensor, Tensor]
"""Hidden state (layers, batch, hidden_size); for an LSTM the pair of hidden and cell state."""

_LAYERS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


@dataclass(frozen=True)
class RecurrentConfig:
    """Sizes of a recurrent language model.

    Attributes:
        cell: ``"rnn"`` (Elman, tanh), ``"lstm"`` or ``"gru"``.
        layers: recurrent layers, one on the other.
        embed_dim: width of the token embedding. Equal to ``hidden_size``, it is tied to the output.
        hidden_size: units per layer.
        dropout: probability of dropping a unit between layers, after the embedding and before
            the output.
    """

    cell: Cell = "lstm"
    layers: int = 1
    embed_dim: int = 256
    hidden_size: int = 256
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.cell not in _LAYERS:
            raise InputError(f"cell must be one of {', '.join(_LAYERS)}, got {self.cell!r}")
        for name in ("layers", "embed_dim", "hidden_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout must be in [0, 1), got {self.dropout}")


class Recurrent(nn.Module):
    r"""Recurrent language model.

    .. math:: h_t = \mathrm{cell}(W_e x_t, h_{t-1}), \qquad
              p(x_{t+1} \mid x_{\le t}) = \mathrm{softmax}(W_o h_t + b_o)

    :math:`W_o` is the embedding :math:`W_e` itself when their sizes agree.

    Args:
        config: sizes.
        vocab_size: number of token ids.

    Example:
        >>> import torch
        >>> from fusewire.models.language import Recurrent, RecurrentConfig
        >>> model = Recurrent(RecurrentConfig(cell="gru", embed_dim=8, hidden_size=16), 10)
        >>> logits, state = model(torch.tensor([[1, 2, 3]]))
        >>> logits, state = model(torch.tensor([[4]]), state)
        >>> logits.shape, state.shape
        (torch.Size([1, 1, 10]), torch.Size([1, 1, 16]))
    """

    def __init__(self, config: RecurrentConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, config.embed_dim)
        self.layers = _LAYERS[config.cell](
            config.embed_dim,
            config.hidden_size,
            config.layers,
            batch_first=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.tied = config.embed_dim == config.hidden_size
        if self.tied:
            self.output_bias = nn.Parameter(torch.zeros(vocab_size))
        else:
            self.output = Linear(config.hidden_size, vocab_size)
        self._initialise()

    @property
    def window(self) -> None:
        """A recurrent model's past has no bound."""
        return

    def initial_state(self, batch: int) -> RecurrentState:
        """Zeros for ``batch`` sequences: the state before the first token."""
        zeros = self.embedding.weight.new_zeros(self.config.layers, batch, self.config.hidden_size)
        return (zeros, zeros.clone()) if self.config.cell == "lstm" else zeros

    def forward(
        self, tokens: Tensor, state: RecurrentState | None = None
    ) -> tuple[Tensor, RecurrentState]:
        """Reads tokens and scores what may follow each of them.

        Args:
            tokens: token ids, (batch, seq_len).
            state: state after the tokens before these; ``None`` means zeros.

        Returns:
            Logits of the next token, (batch, seq_len, vocab_size), and the state after the last.
        """
        hidden, state = self.layers(self.dropout(self.embedding(tokens)), state)
        hidden = self.dropout(hidden)
        if self.tied:
            return fusewire.linear(hidden, self.embedding.weight, self.output_bias), state
        return self.output(hidden), state

    def _initialise(self) -> None:
        """Orthogonal recurrent weights, and for an LSTM a forget gate that starts open.

        Both let gradients reach back many steps before anything is learnt (Jozefowicz et al. 2015).
        """
        hidden_size = self.config.hidden_size
        nn.init.normal_(self.embedding.weight, std=self.config.embed_dim**-0.5)
        for name, parameter in self.layers.named_parameters():
            if name.startswith("weight_hh"):
                for gate in parameter.data.split(hidden_size):
                    nn.init.orthogonal_(gate)
            if name.startswith("bias_ih") and self.config.cell == "lstm":
                nn.init.ones_(parameter.data[hidden_size : 2 * hidden_size])
