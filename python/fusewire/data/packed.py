"""Documents packed into rows without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusewire.data.tokenizers import Tokens


@dataclass(frozen=True)
class PackedBatch:
    """Documents, one behind another in a single row.

    Attributes:
        inputs: token ids, (1, tokens).
        targets: the token after each, within its document, (1, tokens).
        boundaries: where documents begin, and the end of the last, (documents + 1).
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    boundaries: NDArray[np.int64]


class PackedDocuments:
    """Batches of whole documents with about equally many tokens, in a new order each epoch.

    A document longer than ``context`` is cut into pieces of that length. The order is a function
    of seed and epoch, and so is what each step holds.

    Args:
        documents: token ids of each.
        tokens: most tokens of a batch, at least ``context``.
        context: most tokens of a piece.
        seed: decides the order.

    Raises:
        ValueError: no document has two tokens, or a batch has no room for a piece.

    Example:
        >>> import numpy as np
        >>> packed = PackedDocuments([np.arange(5), np.arange(10, 13)], 8, 8, seed=0)
        >>> batch = packed.at(0)
        >>> batch.boundaries.tolist() in ([0, 4, 6], [0, 2, 6])
        True
    """

    def __init__(self, documents: Sequence[Tokens], tokens: int, context: int, seed: int) -> None:
        if tokens < context:
            raise ValueError(f"tokens must be at least context, {context}, got {tokens}")
        self._documents, self._tokens, self._seed = documents, tokens, seed
        pieces = [
            (index, start, min(start + context, len(document) - 1))
            for index, document in enumerate(documents)
            for start in range(0, len(document) - 1, context)
        ]
        if not pieces:
            raise ValueError("there must be a document of at least two tokens")
        self._pieces = np.array(pieces, dtype=np.int64)
        self._epochs: list[int] = [0]  # the first step of each epoch
        self._plan: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def at(self, step: int) -> PackedBatch:
        """The batch of a step, counted from 0; the same whenever it is asked for."""
        epoch = next((n for n, first in enumerate(self._epochs) if first > step), None)
        epoch = len(self._epochs) if epoch is None else epoch
        while True:  # the length of an epoch is known once it has been planned
            batches = self._batches(epoch - 1)
            if epoch == len(self._epochs):
                self._epochs.append(self._epochs[-1] + len(batches))
            if step < self._epochs[epoch]:
                break
            epoch += 1
        return self._pack(batches[step - self._epochs[epoch - 1]])

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """The pieces of each batch of an epoch, filled in a random order."""
        if self._plan[0] != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(len(self._pieces))
            batches: list[list[int]] = [[]]
            room = self._tokens
            for piece in order:
                length = int(self._pieces[piece, 2] - self._pieces[piece, 1])
                if length > room:
                    batches.append([])
                    room = self._tokens
                batches[-1].append(int(piece))
                room -= length
            self._plan = epoch, [np.array(batch) for batch in batches]
        return self._plan[1]

    def _pack(self, pieces: NDArray[np.int64]) -> PackedBatch:
        windows = [
            self._documents[index][start : end + 1].astype(np.int64)
            for index, start, end in self._pieces[pieces]
        ]
        lengths = [len(window) - 1 for window in windows]
        return PackedBatch(
            inputs=np.concatenate([window[:-1] for window in windows])[None],
            targets=np.concatenate([window[1:] for window in windows])[None],
            boundaries=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        )
