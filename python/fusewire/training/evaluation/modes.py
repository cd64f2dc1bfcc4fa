"""How many modes of a known mixture a generator covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusewire.data.vectors import Mixture

# A point belongs to a mode within so many of its deviations.
_REACH = 3.0


@dataclass(frozen=True)
class ModeCount:
    """What a generator makes of a mixture.

    Attributes:
        covered: modes with at least one point near them for every 5 expected.
        modes: how many there are.
        near: part of the points that lie within three deviations of a mode.
        points: how many were counted.
    """

    covered: int
    modes: int
    near: float
    points: int

    def __str__(self) -> str:
        return (
            f"{self.covered}/{self.modes} modes, {100 * self.near:.1f} % of {self.points} points "
            "within three deviations of one"
        )


def count_modes(points: NDArray[np.float32], mixture: Mixture) -> ModeCount:
    """Counts the modes that points lie near to.

    Args:
        points: (points, 2).
        mixture: with known centres.

    Example:
        >>> from fusewire.data.vectors import ring
        >>> str(count_modes(ring().centres[:3].repeat(100, axis=0), ring()))
        '3/8 modes, 100.0 % of 300 points within three deviations of one'
    """
    distances = np.linalg.norm(points[:, None] - mixture.centres, axis=2)
    near = distances.min(1) <= _REACH * mixture.deviation
    counts = np.bincount(distances.argmin(1)[near], minlength=len(mixture.centres))
    enough = len(points) / len(mixture.centres) / 5
    return ModeCount(
        covered=int((counts >= enough).sum()),
        modes=len(mixture.centres),
        near=float(near.mean()),
        points=len(points),
    )
