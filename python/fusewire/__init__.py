"""Fast attention and recurrent networks on CPUs, and small self-supervised models.

Importing this package needs NumPy only. What needs PyTorch is imported when it is first named.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fusewire.ops.attention import (
    paged_attention,
    scaled_dot_product_attention,
    varlen_attention,
)
from fusewire.ops.linear import linear
from fusewire.ops.rnn import gru, lstm, min_gru, min_lstm, rnn
from fusewire.ops.threads import get_num_threads, set_num_threads, show_config

if TYPE_CHECKING:
    from fusewire import dropin, nn
    from fusewire.dropin import disable, enable, enabled, fuse

__all__ = [
    "disable",
    "dropin",
    "enable",
    "enabled",
    "fuse",
    "get_num_threads",
    "gru",
    "linear",
    "lstm",
    "min_gru",
    "min_lstm",
    "nn",
    "paged_attention",
    "rnn",
    "scaled_dot_product_attention",
    "set_num_threads",
    "show_config",
    "varlen_attention",
]

_ROOMS = {"dropin", "nn"}
_DROPIN = {"disable", "enable", "enabled", "fuse"}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"fusewire.{name}")
    if name in _DROPIN:
        return getattr(importlib.import_module("fusewire.dropin"), name)
    raise AttributeError(f"module 'fusewire' has no attribute {name!r}")
