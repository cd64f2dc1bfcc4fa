"""Which probabilities dropout takes away: a hash of where they are, the same as in the kernels.

Written with operators that 64-bit integers of NumPy and of PyTorch share, on any device. The
kernels compute the same words tile by tile (``rust/kernels/src/attention/dropout.rs``).
"""

from __future__ import annotations

import math
from typing import Any

_GOLDEN = 0x9E37_79B9_7F4A_7C15
_LOW = 0xFFFF_FFFF


def _signed(word: int) -> int:
    """The 64-bit word as a signed integer."""
    return word - (1 << 64) if word >> 63 else word


def _shifted(words: Any, by: int) -> Any:
    """The words shifted right, with zeros moving in."""
    return (words >> by) & ((1 << (64 - by)) - 1)


def _mix(words: Any) -> Any:
    """The finalizer of SplitMix64."""
    words = (words ^ _shifted(words, 30)) * _signed(0xBF58_476D_1CE4_E5B9)
    words = (words ^ _shifted(words, 27)) * _signed(0x94D0_49BB_1331_11EB)
    return words ^ _shifted(words, 31)


def dropped(probability: float, seed: Any, places: tuple[Any, Any, Any], keys: Any) -> Any:
    """Whether a probability is dropped.

    Args:
        probability: How often it is.
        seed: An array or tensor of one 64-bit integer with at least one dimension.
        places: Numbers of sequences, heads and queries, 64-bit integers that broadcast.
        keys: Numbers of keys, likewise.

    Returns:
        An array or tensor of bools in the shape that all broadcast to.
    """
    state = _mix(seed)
    for numbers in places:
        state = _mix(state + (numbers + 1) * _signed(_GOLDEN))
    words = ((state & _LOW) + keys * (_GOLDEN & _LOW)) & _LOW
    words = ((words ^ (words >> 16)) * 0x7FEB_352D) & _LOW
    words = (((words ^ (words >> 15)) + _shifted(state, 32)) * 0x846C_A68B) & _LOW
    words = words ^ (words >> 16)
    return words < min(math.floor(probability * 2**32 + 0.5), _LOW)


def kept_scale(probability: float) -> float:
    """What is kept is multiplied by this, so that the mean stays."""
    return 1 / (1 - probability) if probability < 1 else 0.0
