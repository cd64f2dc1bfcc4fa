"""PyTorch modules with the names, arguments and state_dict keys of `torch.nn`."""

from fusewire.nn.attention import MultiheadAttention
from fusewire.nn.cells import GRUCell, LSTMCell, RNNCell
from fusewire.nn.linear import Linear
from fusewire.nn.recurrent import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "Linear", "MultiheadAttention", "RNNCell"]
