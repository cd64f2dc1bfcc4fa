"""Recurrent layers as modules, with the arguments and the state_dict of `torch.nn`."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from fusewire.ops.rnn import autograd
from fusewire.ops.rnn.sequences import Options

_KINDS = {"RNN_TANH": "tanh", "RNN_RELU": "relu", "LSTM": "lstm", "GRU": "gru"}


class RNN(torch.nn.RNN):
    """`torch.nn.RNN`, computed by the kernels behind :func:`fusewire.rnn`.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> output, hidden = fw.nn.RNN(3, 5, nonlinearity="relu")(torch.ones(7, 2, 3))
        >>> output.shape, hidden.shape
        (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))
    """

    def forward(self, input: Any, hx: torch.Tensor | None = None) -> tuple[Any, torch.Tensor]:
        """See `torch.nn.RNN`."""
        output, (hidden,) = _forward(self, input, None if hx is None else [hx])
        return output, hidden


class GRU(torch.nn.GRU):
    """`torch.nn.GRU`, computed by the kernels behind :func:`fusewire.gru`.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> output, hidden = fw.nn.GRU(3, 5, bidirectional=True)(torch.ones(7, 2, 3))
        >>> output.shape, hidden.shape
        (torch.Size([7, 2, 10]), torch.Size([2, 2, 5]))
    """

    def forward(self, input: Any, hx: torch.Tensor | None = None) -> tuple[Any, torch.Tensor]:
        """See `torch.nn.GRU`."""
        output, (hidden,) = _forward(self, input, None if hx is None else [hx])
        return output, hidden


class LSTM(torch.nn.LSTM):
    """`torch.nn.LSTM`, computed by the kernels behind :func:`fusewire.lstm`.

    With `proj_size` it runs PyTorch's own layer.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> output, (hidden, cell) = fw.nn.LSTM(3, 5, num_layers=2)(torch.ones(7, 2, 3))
        >>> output.shape, cell.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 2, 5]))
    """

    def forward(
        self, input: Any, hx: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[Any, tuple[torch.Tensor, torch.Tensor]]:
        """See `torch.nn.LSTM`."""
        if self.proj_size:
            result: tuple[Any, tuple[torch.Tensor, torch.Tensor]] = super().forward(input, hx)
            return result
        output, (hidden, cell) = _forward(self, input, None if hx is None else list(hx))
        return output, (hidden, cell)


def _forward(
    module: torch.nn.RNNBase, input: Any, states: list[torch.Tensor] | None
) -> tuple[Any, list[torch.Tensor]]:
    """What the three modules have in common: layers on a padded or a packed batch."""
    options = Options(
        _KINDS[module.mode],
        bidirectional=module.bidirectional,
        batch_first=module.batch_first,
        dropout=module.dropout,
        training=module.training,
    )
    if not isinstance(input, PackedSequence):
        return autograd.run(options, input, states, module.all_weights)
    rows, batch_sizes, sorted_indices, unsorted_indices = input
    if states is not None and sorted_indices is not None:
        states = [state.index_select(1, sorted_indices) for state in states]
    output, finals = autograd.run_packed(
        options, rows, batch_sizes.tolist(), states, module.all_weights
    )
    if unsorted_indices is not None:
        finals = [final.index_select(1, unsorted_indices) for final in finals]
    return PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices), finals
