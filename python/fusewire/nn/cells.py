"""Single steps of recurrent cells, with the arguments and the state_dict of `torch.nn`."""

from __future__ import annotations

from typing import Any

import torch

from fusewire.nn.symbolic import is_symbolic, recorded, refuse_script
from fusewire.ops import dispatcher
from fusewire.ops.rnn import autograd


class RNNCell(torch.nn.RNNCell):
    """`torch.nn.RNNCell`, computed by the kernels behind :func:`fusewire.rnn`.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> fw.nn.RNNCell(3, 5)(torch.ones(2, 3)).shape
        torch.Size([2, 5])
    """

    __prepare_scriptable__ = refuse_script

    def forward(self, input: torch.Tensor, hx: torch.Tensor | None = None) -> torch.Tensor:
        """See `torch.nn.RNNCell`."""
        if is_symbolic(input):
            return recorded(self, input, hx)  # type: ignore[no-any-return]
        if dispatcher.is_traced():
            return super().forward(input, hx)
        try:
            return _step(self, self.nonlinearity, input, None if hx is None else [hx])[0]
        except (TypeError, ValueError):
            return super().forward(input, hx)  # which says what is wrong


class GRUCell(torch.nn.GRUCell):
    """`torch.nn.GRUCell`, computed by the kernels behind :func:`fusewire.gru`.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> fw.nn.GRUCell(3, 5)(torch.ones(2, 3)).shape
        torch.Size([2, 5])
    """

    __prepare_scriptable__ = refuse_script

    def forward(self, input: torch.Tensor, hx: torch.Tensor | None = None) -> torch.Tensor:
        """See `torch.nn.GRUCell`."""
        if is_symbolic(input):
            return recorded(self, input, hx)  # type: ignore[no-any-return]
        if dispatcher.is_traced():
            return super().forward(input, hx)
        try:
            return _step(self, "gru", input, None if hx is None else [hx])[0]
        except (TypeError, ValueError):
            return super().forward(input, hx)


class LSTMCell(torch.nn.LSTMCell):
    """`torch.nn.LSTMCell`, computed by the kernels behind :func:`fusewire.lstm`.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> hidden, cell = fw.nn.LSTMCell(3, 5)(torch.ones(2, 3))
        >>> hidden.shape, cell.shape
        (torch.Size([2, 5]), torch.Size([2, 5]))
    """

    __prepare_scriptable__ = refuse_script

    def forward(
        self, input: torch.Tensor, hx: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `torch.nn.LSTMCell`."""
        if is_symbolic(input):
            return recorded(self, input, hx)  # type: ignore[no-any-return]
        if dispatcher.is_traced():
            return super().forward(input, hx)
        try:
            states = None if hx is None else list(hx)
            if states is not None and len(states) != 2:
                raise TypeError("an LSTM has two states")
            hidden, cell = _step(self, "lstm", input, states)
        except (TypeError, ValueError):
            return super().forward(input, hx)
        return hidden, cell


_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_PROMOTED = frozenset({"gru", "lstm"})
"""Cells whose next states PyTorch's autocast leaves in the type of the last ones."""


def _step(
    module: torch.nn.RNNCellBase, kind: str, input: torch.Tensor, states: list[torch.Tensor] | None
) -> list[torch.Tensor]:
    """The next states of ``(batch, input_size)`` or ``(input_size)``."""
    if input.dim() == 1:
        batch = None if states is None else [state[None] for state in states]
        return [state[0] for state in _step(module, kind, input[None], batch)]
    if input.dim() != 2:
        raise ValueError(f"input must have 1 or 2 dimensions, but has shape {tuple(input.shape)}")
    if kind in _PROMOTED and torch.is_autocast_enabled("cpu") and input.is_cpu:
        dtype = module.weight_ih.dtype
        with torch.autocast("cpu", enabled=False):
            given = None if states is None else [state.to(dtype) for state in states]
            return _step(module, kind, input.to(dtype), given)
    names = _NAMES if module.bias else _NAMES[:2]
    try:  # Quicker than attributes, which parametrizations put in parameters' places.
        weights: list[Any] = list(map(module._parameters.__getitem__, names))
    except KeyError:
        weights = [getattr(module, name) for name in names]
    return autograd.run_step(kind, input, states, weights)
