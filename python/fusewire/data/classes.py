"""The classes of samples: numbers for networks, names for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Classes:
    """Which class each sample of a data set has.

    Attributes:
        labels: numbers from 0 without gaps, one per sample, (samples,).
        names: what the data call each class, in the order of the numbers.
    """

    labels: NDArray[np.int64]
    names: tuple[str, ...]


def number_classes(told: Sequence[int] | Sequence[str] | NDArray[np.integer]) -> Classes:
    """Numbers classes from 0 without gaps, as networks want them.

    Args:
        told: the class of each sample as the data have it, (samples,): whole numbers, which keep
            their order, or words, which get that of the alphabet.

    Example:
        >>> number_classes([9, 7, 9])
        Classes(labels=array([1, 0, 1]), names=('7', '9'))
    """
    values, labels = np.unique(told, return_inverse=True)
    return Classes(labels.astype(np.int64), tuple(map(str, values.tolist())))
