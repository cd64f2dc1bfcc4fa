"""Recurrent networks over whole sequences: one door for NumPy arrays and PyTorch tensors."""

from fusewire.ops.rnn.cells import gru, lstm, rnn
from fusewire.ops.rnn.gradients import gru_backward, lstm_backward, rnn_backward
from fusewire.ops.rnn.minimal import (
    min_gru,
    min_gru_backward,
    min_lstm,
    min_lstm_backward,
)
from fusewire.ops.rnn.weights import LayerWeights

__all__ = [
    "LayerWeights",
    "gru",
    "gru_backward",
    "lstm",
    "lstm_backward",
    "min_gru",
    "min_gru_backward",
    "min_lstm",
    "min_lstm_backward",
    "rnn",
    "rnn_backward",
]
