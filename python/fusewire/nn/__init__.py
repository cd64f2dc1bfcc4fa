"""PyTorch modules with the names, arguments and state_dict keys of `torch.nn`."""

from fusewire.nn.attention import MultiheadAttention
from fusewire.nn.linear import Linear

__all__ = ["Linear", "MultiheadAttention"]
