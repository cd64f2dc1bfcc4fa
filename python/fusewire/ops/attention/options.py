"""What turns products of queries and keys into scores, in one form for every implementation."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any, Literal, NamedTuple

CausalAlignment = Literal["top_left", "bottom_right"]

UNBOUNDED = -1
NO_CAP = 0.0
_SMALLEST, _LARGEST = 2.0**-126, 2.0**128 - 2.0**104
"""The bounds of float32 between which numbers have all their digits."""


class Options(NamedTuple):
    """The arguments of attention that are neither arrays nor tensors, as the kernels take them."""

    scale: float
    softcap: float
    dropout_p: float
    left: int
    right: int
    bottom_right: bool
    packed: bool = False

    @property
    def is_full(self) -> bool:
        """Whether every query reaches every key."""
        return self.left == UNBOUNDED and self.right == UNBOUNDED


def resolve(
    head_dim: int,
    is_causal: bool,
    causal_alignment: str,
    window: tuple[int, int] | None,
    scale: float | None,
    softcap: float | None,
    dropout_p: float,
) -> Options:
    """Checks and completes the arguments of :func:`fusewire.scaled_dot_product_attention`.

    Raises:
        TypeError: If one of them is nothing of its kind.
        ValueError: If one of them is out of range.
    """
    if causal_alignment not in ("top_left", "bottom_right"):
        raise ValueError(
            f"causal_alignment must be 'top_left' or 'bottom_right', but is {causal_alignment!r}"
        )
    left, right = (UNBOUNDED, UNBOUNDED) if window is None else _sides(window)
    if _flag("is_causal", is_causal):
        right = 0
    cap = NO_CAP
    if softcap is not None:
        cap = _number("softcap", softcap)
        if not _SMALLEST <= cap <= _LARGEST:
            raise ValueError(f"softcap must be positive and finite in float32, but is {softcap!r}")
    dropout = _number("dropout_p", dropout_p)
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout_p must lie between 0 and 1, but is {dropout_p}")
    if scale is None:
        scale = 1 / math.sqrt(head_dim) if head_dim else 1.0
    return Options(
        _number("scale", scale), cap, dropout, left, right, causal_alignment == "bottom_right"
    )


def _sides(window: tuple[int, int]) -> tuple[int, int]:
    """The two bounds of a window."""
    pair = isinstance(window, (tuple, list)) and len(window) == 2
    try:
        left, right = int(window[0]), int(window[1])
        pair = pair and left == window[0] and right == window[1]
    except (TypeError, ValueError, OverflowError, LookupError):
        pair = False
    if not pair or min(left, right) < UNBOUNDED or max(left, right) >= 1 << 63:
        raise ValueError(
            "window must be two whole numbers (left, right), each -1 for unbounded or at "
            f"least 0, of 64 bits, but is {window!r}"
        )
    return left, right


def _flag(name: str, value: object) -> bool:
    """A bool, of whatever library; a word would count as true."""
    if isinstance(value, str) or value not in (True, False):
        raise TypeError(f"{name} must be True or False, but is {value!r}")
    return bool(value)


def _number(name: str, value: Any) -> float:
    """A number as it stands; a word would be read as one."""
    if type(value) is float:
        return value
    if not isinstance(value, (str, bytes)):
        with suppress(TypeError, ValueError, OverflowError):
            return float(value)
    raise TypeError(f"{name} must be a number, but is {value!r}")


def check_heads(heads: int, kv_heads: int, enable_gqa: bool) -> None:
    """Raises a ValueError where several query heads share one of keys without `enable_gqa`."""
    if not _flag("enable_gqa", enable_gqa) and heads != kv_heads:
        raise ValueError(
            f"query has {heads} heads, but key has {kv_heads}; "
            "pass enable_gqa=True if they shall share them"
        )
