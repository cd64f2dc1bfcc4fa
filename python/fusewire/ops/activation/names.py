"""Which activations there are."""

from __future__ import annotations

from typing import Literal, get_args

Activation = Literal["gelu", "gelu_tanh", "relu", "sigmoid", "silu", "tanh"]

_NAMES = get_args(Activation)


def check_name(activation: object) -> None:
    """Raises a ValueError where there is no such activation."""
    if activation not in _NAMES:
        *others, last = map(repr, _NAMES)
        raise ValueError(f"activation must be {', '.join(others)} or {last}, but is {activation!r}")
