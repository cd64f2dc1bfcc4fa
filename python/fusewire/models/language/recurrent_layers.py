"""Layers of recurrent cells with locked dropout between them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

import fusewire
from fusewire.models.language.dropout import LockedDropout
from fusewire.nn import GRU, LSTM, RNN, Recurrent

Cell: TypeAlias = Literal["rnn", "relu", "lstm", "gru"]

RecurrentState: TypeAlias = Tensor | tuple[Tensor, Tensor]
"""Hidden state (layers, batch, hidden_size); for an LSTM the pair of hidden and cell state."""

_MODULES: dict[str, Callable[..., Recurrent]] = {
    "rnn": RNN,
    "relu": partial(RNN, nonlinearity="relu"),
    "lstm": LSTM,
    "gru": GRU,
}
_OPERATORS: dict[str, Callable[..., tuple[Tensor, Any]]] = {
    "RNN_TANH": fusewire.rnn,
    "RNN_RELU": partial(fusewire.rnn, nonlinearity="relu"),
    "LSTM": fusewire.lstm,
    "GRU": fusewire.gru,
}


def make_layers(cell: Cell, input_size: int, hidden_size: int, layers: int = 1) -> Recurrent:
    """Layers of (batch, seq_len, size)."""
    return _MODULES[cell](input_size, hidden_size, layers, batch_first=True)


def initialise_layers(module: Recurrent) -> None:
    """Gives layers weights that let gradients reach back many steps before anything is learnt.

    Orthogonal recurrent weights, and for an LSTM a forget gate that starts open (Jozefowicz et al.
    2015). ReLU has no bound that would hold a state back: half of an orthogonal matrix, and no
    biases. From the identity (Le et al. 2015) states grow from the first step on.
    """
    size, relu = module.hidden_size, module.mode == "RNN_RELU"
    for name, parameter in module.named_parameters():
        if name.startswith("weight_hh"):
            for gate in parameter.data.chunk(len(parameter) // size):
                nn.init.orthogonal_(gate, gain=0.5 if relu else 1.0)
        if name.startswith("bias") and relu:
            nn.init.zeros_(parameter)
        if name.startswith("bias_ih") and module.mode == "LSTM":
            nn.init.ones_(parameter.data[size : 2 * size])


def unbounded_weights(model: nn.Module) -> list[nn.Parameter]:
    """The recurrent weights of ReLU layers, which can make states grow without a bound."""
    return [
        parameter
        for module in model.modules()
        if getattr(module, "mode", None) == "RNN_RELU"
        for name, parameter in module.named_parameters(recurse=False)
        if name.startswith("weight_hh")
    ]


def run_layers(
    module: Recurrent,
    input: Tensor,
    state: RecurrentState | None,
    dropout: LockedDropout,
    lengths: Tensor | None = None,
) -> tuple[Tensor, RecurrentState]:
    """Runs layers on (batch, seq_len, input_size).

    Args:
        module: from `make_layers`.
        input: the embedded tokens.
        state: before the first token; zeros if None.
        dropout: what is dropped between layers.
        lengths: tokens of each row that are no padding, (batch); all if None.

    Returns:
        The last layer's output (batch, seq_len, hidden_size) and the state after each row's end.
    """
    operator, weights = _OPERATORS[module.mode], module.all_weights
    # All layers in one call where nothing happens between them, else one by one.
    together = module.num_layers if not dropout.active else 1
    hidden, finals = input, []
    for first in range(0, module.num_layers, together):
        group = slice(first, first + together)
        hidden, final = operator(
            hidden if first == 0 else dropout(hidden),
            None if state is None else _each(state, itemgetter(group)),
            weights[group],
            batch_first=True,
            lengths=lengths,
        )
        finals.append(final)
    return hidden, _join(finals)


def select_rows(state: RecurrentState, rows: Tensor) -> RecurrentState:
    """The state of the given rows, in their order."""
    return _each(state, lambda part: part[:, rows])


def _each(state: RecurrentState, change: Callable[[Tensor], Tensor]) -> RecurrentState:
    if isinstance(state, tuple):
        return change(state[0]), change(state[1])
    return change(state)


def _join(states: list[Any]) -> RecurrentState:
    """The states of groups of layers as one."""
    if isinstance(states[0], tuple):
        hidden, cell = zip(*states, strict=True)
        return torch.cat(hidden), torch.cat(cell)
    return torch.cat(states)
