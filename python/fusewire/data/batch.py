"""What a model is given in one step, and what it is to say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
"""The target of tokens that are not to be predicted; what PyTorch's cross entropy leaves out."""


@dataclass(frozen=True)
class Batch:
    """Inputs and targets of one step: rows of equal length, or packed sequences in a single row.

    Attributes:
        inputs: token ids, (batch, seq_len), or (1, tokens) of a packed batch.
        targets: what is to be predicted at each, in the same places; `IGNORED` where nothing is.
        continues: each row goes on where the same row of the batch before ended.
        boundaries: where the sequences of a packed batch begin, and the end of the last,
            (sequences + 1); ``None`` for rows.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    continues: bool = False
    boundaries: NDArray[np.int64] | None = None

    @property
    def predicted(self) -> int:
        """Tokens to be predicted."""
        return int(np.count_nonzero(self.targets != IGNORED))

    def part(self, rows: slice, batch: int) -> Batch:
        """What some of ``batch`` rows hold; those of a packed batch get its sequences in order.

        A packed batch of so many contexts has at least as many sequences, so that no row is empty.
        """
        if self.boundaries is None:
            return Batch(self.inputs[rows], self.targets[rows], self.continues)
        sequences = len(self.boundaries) - 1
        first, last = (place * sequences // batch for place in (rows.start, rows.stop))
        bounds = self.boundaries[first : last + 1]
        held = np.s_[:, bounds[0] : bounds[-1]]
        return Batch(self.inputs[held], self.targets[held], boundaries=bounds - bounds[0])


class Batches(Protocol):
    """A source of batches in a fixed order."""

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 0; the same whenever it is asked for."""
