"""Which of our classes computes what a class of PyTorch's does."""

from __future__ import annotations

import torch
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from fusewire import nn
from fusewire.dropin.linear import Linear

CLASSES: dict[type, type] = {
    torch.nn.RNN: nn.RNN,
    torch.nn.LSTM: nn.LSTM,
    torch.nn.GRU: nn.GRU,
    torch.nn.RNNCell: nn.RNNCell,
    torch.nn.LSTMCell: nn.LSTMCell,
    torch.nn.GRUCell: nn.GRUCell,
    torch.nn.MultiheadAttention: nn.MultiheadAttention,
    torch.nn.TransformerEncoderLayer: nn.TransformerEncoderLayer,
}
"""What modules become."""

LINEAR_CLASSES: dict[type, type] = {
    NonDynamicallyQuantizableLinear: Linear,
    torch.nn.Linear: Linear,
}
"""Linear layers, which are changed where that is asked for, or pays."""
