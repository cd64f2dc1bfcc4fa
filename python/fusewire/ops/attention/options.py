"""What turns products of queries and keys into scores, in one form for every implementation."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

CausalAlignment = Literal["top_left", "bottom_right"]

UNBOUNDED = -1
NO_CAP = 0.0


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
        ValueError: If one of them is out of range.
    """
    if causal_alignment not in ("top_left", "bottom_right"):
        raise ValueError(
            f"causal_alignment must be 'top_left' or 'bottom_right', but is {causal_alignment!r}"
        )
    left, right = UNBOUNDED, UNBOUNDED
    if window is not None:
        pair = isinstance(window, (tuple, list)) and len(window) == 2
        if not pair or any(int(side) != side or side < UNBOUNDED for side in window):
            raise ValueError(
                "window must be two whole numbers (left, right), each -1 for unbounded or at "
                f"least 0, but is {window!r}"
            )
        left, right = int(window[0]), int(window[1])
    if is_causal:
        right = 0
    if softcap is not None and not 0 < softcap < math.inf:
        raise ValueError(f"softcap must be positive and finite, but is {softcap}")
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"dropout_p must lie between 0 and 1, but is {dropout_p}")
    if scale is None:
        scale = 1 / math.sqrt(head_dim) if head_dim else 1.0
    return Options(
        float(scale),
        NO_CAP if softcap is None else float(softcap),
        float(dropout_p),
        left,
        right,
        causal_alignment == "bottom_right",
    )


def check_seed(seed: object) -> None:
    """Raises a ValueError where dropout cannot draw by a seed."""
    if not hasattr(seed, "__index__") or not -(2**63) <= int(seed) < 2**63:
        raise ValueError(f"seed must be a whole number of 64 bits with its sign, but is {seed!r}")


def check_heads(heads: int, kv_heads: int, enable_gqa: bool) -> None:
    """Raises a ValueError where several query heads share one of keys without `enable_gqa`."""
    if heads != kv_heads and not enable_gqa:
        raise ValueError(
            f"query has {heads} heads, but key has {kv_heads}; "
            "pass enable_gqa=True if they shall share them"
        )
