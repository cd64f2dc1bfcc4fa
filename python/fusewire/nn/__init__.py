"""PyTorch modules with the names, arguments and state_dict keys of `torch.nn`, and a few more."""

from fusewire.nn.attention import MultiheadAttention
from fusewire.nn.cells import GRUCell, LSTMCell, RNNCell
from fusewire.nn.linear import Linear
from fusewire.nn.minimal import MinGRU, MinLSTM
from fusewire.nn.recurrent import Recurrent
from fusewire.nn.rnn import GRU, LSTM, RNN
from fusewire.nn.transformer import TransformerEncoderLayer

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "Linear",
    "MinGRU",
    "MinLSTM",
    "MultiheadAttention",
    "RNNCell",
    "Recurrent",
    "TransformerEncoderLayer",
]
