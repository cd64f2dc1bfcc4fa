"""Recurrent language model: embedding, Elman, LSTM or GRU layers, next-token logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fusewire.config import require_declared
from fusewire.errors import InputError
from fusewire.models.dense import Dense, dense
from fusewire.models.language.dropout import LockedDropout
from fusewire.models.language.recurrent_layers import (
    Cell,
    RecurrentState,
    initialise_layers,
    make_layers,
    run_layers,
    select_rows,
)
from fusewire.models.language.saving import Saved


@dataclass(frozen=True)
class RecurrentConfig:
    """Sizes of a recurrent language model.

    Attributes:
        cell: ``"rnn"`` (Elman with tanh), ``"relu"`` (Elman with ReLU), ``"lstm"`` or ``"gru"``.
        layers: recurrent layers, one on the other.
        embed_dim: width of the token embedding. Equal to ``hidden_size``, it is tied to the output.
        hidden_size: units per layer.
        dropout: probability of dropping a unit, for a whole sequence, between layers, after the
            embedding and before the output.
    """

    cell: Cell = "lstm"
    layers: int = 1
    embed_dim: int = 256
    hidden_size: int = 256
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_declared(self)
        for name in ("layers", "embed_dim", "hidden_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout must be in [0, 1), got {self.dropout}")


class Recurrent(Saved[RecurrentConfig], nn.Module):
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

    KIND = "recurrent"
    CONFIG = RecurrentConfig

    def __init__(self, config: RecurrentConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, config.embed_dim)
        self.layers = make_layers(config.cell, config.embed_dim, config.hidden_size, config.layers)
        self.dropout = LockedDropout(config.dropout)
        self.tied = config.embed_dim == config.hidden_size
        if self.tied:
            self.output_bias = nn.Parameter(torch.zeros(vocab_size))
        else:
            self.output = Dense(config.hidden_size, vocab_size)
        nn.init.normal_(self.embedding.weight, std=config.embed_dim**-0.5)
        initialise_layers(self.layers)

    @property
    def window(self) -> None:
        """A recurrent model's past has no bound."""
        return

    @property
    def feature_dim(self) -> int:
        """Width of ``features``' output."""
        return self.config.hidden_size

    def initial_state(self, batch: int) -> RecurrentState:
        """Zeros for ``batch`` sequences: the state before the first token."""
        zeros = self.embedding.weight.new_zeros(self.config.layers, batch, self.config.hidden_size)
        return (zeros, zeros.clone()) if self.config.cell == "lstm" else zeros

    def begin(self, tokens: Tensor, padding: Tensor | None) -> tuple[Tensor, RecurrentState]:
        """Reads prompts.

        Args:
            tokens: token ids, (batch, prompt_len).
            padding: tokens at the beginning of each row that are none, (batch); none if None.

        Returns:
            Logits of what follows each prompt, (batch, vocab_size), and the state.
        """
        prompt_len = tokens.shape[1]
        if padding is None:
            hidden, state = self.features(tokens)
            return self.score(hidden[:, -1]), state
        # What is padded in front is turned to the end, where lengths leave it out.
        places = torch.arange(prompt_len, device=tokens.device) + padding[:, None]
        lengths = prompt_len - padding
        hidden, state = self.features(tokens.gather(1, places % prompt_len), lengths=lengths)
        return self.score(hidden[torch.arange(len(tokens)), lengths - 1]), state

    def forward(
        self,
        tokens: Tensor,
        state: RecurrentState | None = None,
        *,
        lengths: Tensor | None = None,
        boundaries: Tensor | None = None,
    ) -> tuple[Tensor, RecurrentState]:
        """Reads tokens and scores what may follow each of them.

        Args:
            tokens: token ids, (batch, seq_len).
            state: state after the tokens before these; ``None`` means zeros.
            lengths: tokens of each row that are no padding, (batch); all if None.
            boundaries: where the sequences of a packed batch (1, tokens) begin, and the end of
                the last; each is read by itself, and has a row of the state.

        Returns:
            Logits of the next token, (batch, seq_len, vocab_size), and the state after the last.
        """
        hidden, state = self.features(tokens, state, lengths=lengths, boundaries=boundaries)
        return self.score(hidden), state

    def features(
        self,
        tokens: Tensor,
        state: RecurrentState | None = None,
        *,
        lengths: Tensor | None = None,
        boundaries: Tensor | None = None,
    ) -> tuple[Tensor, RecurrentState]:
        """What ``forward`` scores: the state of each token, (batch, seq_len, hidden_size)."""
        embedded = self.embedding(tokens)
        if boundaries is not None:  # a row each for the layers alone, which leave out padding
            lengths = boundaries.diff()
            embedded = pad_sequence(embedded[0].split(lengths.tolist()), batch_first=True)
        hidden, state = run_layers(
            self.layers, self.dropout(embedded), state, self.dropout, lengths
        )
        hidden = self.dropout(hidden)
        if boundaries is not None:
            assert lengths is not None
            places = torch.arange(hidden.shape[1], device=hidden.device)
            hidden = hidden[places < lengths[:, None]][None]
        return hidden, state

    def score(self, hidden: Tensor) -> Tensor:
        """Logits of every token for what ``features`` gave: (batch, seq_len, vocab_size)."""
        if self.tied:
            return dense(hidden, self.embedding.weight, self.output_bias)
        logits: Tensor = self.output(hidden)
        return logits

    def select(self, state: RecurrentState, rows: Tensor) -> RecurrentState:
        """The state of the given rows, in their order."""
        return select_rows(state, rows)
