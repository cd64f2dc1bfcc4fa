"""Checks that configurations make of the numbers they are given."""

from __future__ import annotations

import math

from fusewire.errors import InputError

_LARGEST_COUNT = 2**31 - 1
_LARGEST_BATCH = 2**20  # more fits no memory, and asking may exhaust it before it is refused
_LARGEST_SEED = 2**63 - 1  # what PyTorch's generators take


def require_counts(**values: int) -> None:
    """Refuses sizes and numbers of things that are not at least 1, or beyond any machine."""
    require_between(1, _LARGEST_COUNT, **values)


def require_batch(**values: int) -> None:
    """Refuses numbers of rows that a step cannot take."""
    require_between(1, _LARGEST_BATCH, **values)


def require_seed(seed: int) -> None:
    """Refuses what a random generator cannot start from."""
    require_between(0, _LARGEST_SEED, seed=seed)


def require_positive(**values: float) -> None:
    """Refuses numbers that are not finite and more than 0."""
    for name, value in values.items():
        if not value > 0:  # NaN fails too
            raise InputError(f"{name} must be more than 0, got {value}")
        if value == math.inf:
            raise InputError(f"{name} must be finite, got {value}")


def require_between(least: float, most: float, **values: float) -> None:
    """Refuses numbers outside of a range whose ends belong to it; NaN and infinity always."""
    for name, value in values.items():
        if not least <= value:  # NaN fails too
            raise InputError(f"{name} must be at least {least}, got {value}")
        if not (value <= most and value < math.inf):
            bound = f"at most {most}" if most < math.inf else "finite"
            raise InputError(f"{name} must be {bound}, got {value}")
