"""Recurrent encoder-decoder with attention: reads one sequence and writes another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

import fusewire
from fusewire.config import require_declared
from fusewire.errors import InputError
from fusewire.models.language.alignment import BahdanauAttention, LuongAttention, Source
from fusewire.models.language.conditioned import Conditioned
from fusewire.models.language.dropout import LockedDropout
from fusewire.models.language.recurrent_layers import (
    RecurrentState,
    initialise_layers,
    make_layers,
    run_layers,
    select_rows,
)
from fusewire.models.language.saving import Saved
from fusewire.nn import GRU, LSTM, Linear


@dataclass(frozen=True)
class RecurrentEncoderDecoderConfig:
    """Sizes of a recurrent encoder-decoder.

    Attributes:
        cell: ``"lstm"`` or ``"gru"``, of both halves.
        attention: ``"bahdanau"`` looks at the source before each step, with the state before it,
            and the step reads what it saw; ``"luong"`` looks after it, with the state it made.
        embed_dim: width of the token embedding.
        hidden_size: units of the decoder, and of each direction of the encoder.
        dropout: probability of dropping a unit of embedding or output, for a whole sequence.
    """

    cell: Literal["lstm", "gru"] = "gru"
    attention: Literal["bahdanau", "luong"] = "luong"
    embed_dim: int = 128
    hidden_size: int = 256
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_declared(self)
        for name in ("embed_dim", "hidden_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout must be in [0, 1), got {self.dropout}")


class AlignedState:
    """What the decoder remembers: the source, and its own recurrent state."""

    def __init__(
        self, source: Source, initial: RecurrentState, recurrent: RecurrentState | None = None
    ) -> None:
        self.source = source
        self.initial = initial
        self.recurrent = initial if recurrent is None else recurrent

    @property
    def hidden(self) -> Tensor:
        """The encoder's output, (batch, source_len, 2 · hidden_size)."""
        return self.source.hidden


class RecurrentEncoderDecoder(Saved[RecurrentEncoderDecoderConfig], nn.Module):
    r"""Bidirectional recurrent encoder, and a decoder that attends to it.

    The decoder begins with the encoder's last states, combined by a linear layer.

    Args:
        config: sizes.
        vocab_size: number of token ids of source and target together.

    Example:
        >>> import torch
        >>> from fusewire.models.language import RecurrentEncoderDecoder
        >>> from fusewire.models.language import RecurrentEncoderDecoderConfig
        >>> sizes = RecurrentEncoderDecoderConfig(embed_dim=8, hidden_size=8)
        >>> model = RecurrentEncoderDecoder(sizes, vocab_size=10)
        >>> model(torch.tensor([[1, 2, 3]]), torch.tensor([[0, 4]])).shape
        torch.Size([1, 2, 10])
    """

    KIND = "recurrent-encoder-decoder"
    CONFIG = RecurrentEncoderDecoderConfig

    def __init__(self, config: RecurrentEncoderDecoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        size, memory_size = config.hidden_size, 2 * config.hidden_size
        looks_first = config.attention == "bahdanau"
        self.embedding = nn.Embedding(vocab_size, config.embed_dim)
        self.encoder = (LSTM if config.cell == "lstm" else GRU)(
            config.embed_dim, size, batch_first=True, bidirectional=True
        )
        self.bridge = Linear(memory_size, size, activation="tanh")
        self.attention = (BahdanauAttention if looks_first else LuongAttention)(size, memory_size)
        step_size = config.embed_dim + memory_size if looks_first else config.embed_dim
        self.decoder = make_layers(config.cell, step_size, size)
        self.combine = Linear(size + memory_size, size, activation="tanh")
        self.output = Linear(size, vocab_size)
        self.dropout = LockedDropout(config.dropout)
        nn.init.normal_(self.embedding.weight, std=config.embed_dim**-0.5)
        initialise_layers(self.encoder)
        initialise_layers(self.decoder)

    @property
    def window(self) -> None:
        """A recurrent decoder writes without a bound."""
        return

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> AlignedState:
        """Reads the source.

        Args:
            source: token ids, (batch, source_len).
            lengths: tokens of each row that are no padding, (batch); all if None.
        """
        operator = fusewire.lstm if self.config.cell == "lstm" else fusewire.gru
        hidden, final = operator(
            self.dropout(self.embedding(source)),
            None,
            self.encoder.all_weights,
            bidirectional=True,
            batch_first=True,
            lengths=lengths,
        )
        if isinstance(final, tuple):
            initial: RecurrentState = self._bridge(final[0]), self._bridge(final[1])
        else:
            initial = self._bridge(final)
        return AlignedState(Source(hidden, self.attention.keys(hidden), lengths), initial)

    def forward(
        self, source: Tensor, target: Tensor, source_lengths: Tensor | None = None
    ) -> Tensor:
        """Scores what may follow each token of the target.

        Args:
            source: token ids, (batch, source_len).
            target: token ids from the begin token on, (batch, target_len).
            source_lengths: tokens of each source that are no padding, (batch); all if None.

        Returns:
            Logits of the next token, (batch, target_len, vocab_size).
        """
        return self.decode(target, self.encode(source, source_lengths))[0]

    def conditioned(self, source: Tensor, lengths: Tensor | None = None) -> Conditioned:
        """The language model of targets of these sources, for `generate` and `beam_search`."""
        return Conditioned(self, self.encode(source, lengths))

    def decode(self, target: Tensor, state: AlignedState) -> tuple[Tensor, AlignedState]:
        """Scores what may follow each new token; ``state`` tells the source and what came before.

        Args:
            target: new token ids, (batch, query_len).
            state: from `encode`, or after the tokens before these.
        """
        hidden, context, recurrent = self._read(target, state)
        combined = self.combine(torch.cat([hidden, context], dim=-1))
        logits = self.output(self.dropout(combined))
        return logits, AlignedState(state.source, state.initial, recurrent)

    def select(self, state: AlignedState, rows: Tensor) -> AlignedState:
        """The state of the given rows, in their order."""
        initial, recurrent = (select_rows(part, rows) for part in (state.initial, state.recurrent))
        return AlignedState(state.source.select(rows), initial, recurrent)

    def fresh(self, state: AlignedState) -> AlignedState:
        """The same source with nothing written yet."""
        return AlignedState(state.source, state.initial)

    @torch.no_grad()
    def attention_map(
        self, source: Tensor, target: Tensor, source_lengths: Tensor | None = None
    ) -> Tensor:
        """How much each target token attends to each source token.

        Returns:
            Weights, (1, batch, target_len, source_len); those of a row sum to 1.
        """
        state = self.encode(source, source_lengths)
        hidden, _, _ = self._read(target, state)
        if self.config.attention == "bahdanau":  # each step looks with the state before it
            before = _hidden_of(state.initial).transpose(0, 1)
            hidden = torch.cat([before, hidden[:, :-1]], dim=1)
        return self.attention.weights(hidden, state.source)[None]

    def _read(self, target: Tensor, state: AlignedState) -> tuple[Tensor, Tensor, RecurrentState]:
        """The decoder's states, what each saw of the source, and the last state."""
        embedded = self.dropout(self.embedding(target))
        if self.config.attention == "luong":
            hidden, recurrent = run_layers(self.decoder, embedded, state.recurrent, self.dropout)
            return hidden, self.attention(hidden, state.source), recurrent
        recurrent, hiddens, contexts = state.recurrent, [], []
        for step in embedded.split(1, dim=1):
            context = self.attention(_hidden_of(recurrent).transpose(0, 1), state.source)
            seen = torch.cat([step, context], dim=-1)
            hidden, recurrent = run_layers(self.decoder, seen, recurrent, self.dropout)
            hiddens.append(hidden)
            contexts.append(context)
        return torch.cat(hiddens, dim=1), torch.cat(contexts, dim=1), recurrent

    def _bridge(self, final: Tensor) -> Tensor:
        """States of both directions (2, batch, hidden_size) as one (1, batch, hidden_size)."""
        bridged: Tensor = self.bridge(torch.cat([final[0], final[1]], dim=-1))
        return bridged[None]


def _hidden_of(state: RecurrentState) -> Tensor:
    return state[0] if isinstance(state, tuple) else state
