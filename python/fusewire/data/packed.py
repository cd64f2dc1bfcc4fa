"""Documents packed into batches without padding."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fusewire.data.batch import Batch
from fusewire.data.documents import Documents
from fusewire.data.masking import Masker


class _Order:
    """Which pieces a batch holds: as many as fit, in a new order each epoch.

    What an epoch leaves over begins the first batch of the next, so that all are about equally
    full. The order is a function of the step.
    """

    def __init__(self, lengths: NDArray[np.int64], capacity: int, seed: int) -> None:
        self._lengths, self._capacity, self._seed = lengths, capacity, seed
        self._made = 0
        self._restart()

    def at(self, step: int) -> NDArray[np.int64]:
        """Places of the pieces of a step, counted from 0."""
        if step < self._made:
            self._restart()
        while self._made < step:
            self._now = next(self._batches)
            self._made += 1
        return self._now

    def _restart(self) -> None:
        self._batches = self._plan()
        self._now, self._made = next(self._batches), 0

    def _plan(self) -> Iterator[NDArray[np.int64]]:
        order = np.zeros(0, dtype=np.int64)
        for epoch in itertools.count():
            random = np.random.default_rng((self._seed, epoch))
            order = np.concatenate([order, random.permutation(len(self._lengths))])
            ends = np.cumsum(self._lengths[order])
            first, before = 0, 0
            while (last := int(np.searchsorted(ends, before + self._capacity, "right"))) < len(
                order
            ):
                yield order[first:last]
                first, before = last, int(ends[last - 1])
            order = order[first:]


class PackedDocuments:
    """Documents for a model that says what comes next, packed into batches.

    A document longer than ``context`` is cut into pieces of that length. The batch of a step is a
    function of seed and step.

    Args:
        documents: what to pack.
        batch: contexts that a batch may hold.
        context: most tokens of a piece.
        seed: decides the order.

    Example:
        >>> import numpy as np
        >>> from fusewire.data.documents import Documents
        >>> documents = Documents(np.array([0, 1, 2, 3, 4, 10, 11, 12]), np.array([0, 5, 8]))
        >>> batch = PackedDocuments(documents, batch=1, context=8, seed=0).at(0)
        >>> batch.boundaries.tolist() in ([0, 4, 6], [0, 2, 6])
        True
    """

    def __init__(self, documents: Documents, batch: int, context: int, seed: int) -> None:
        self._tokens = documents.tokens
        self._pieces = documents.pieces(context, ahead=1)
        self._order = _Order(self._pieces[:, 1] - self._pieces[:, 0], batch * context, seed)

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 0; the same whenever it is asked for."""
        return _pack(self._tokens, self._pieces[self._order.at(step)])


def _pack(tokens: NDArray[np.integer], pieces: NDArray[np.int64]) -> Batch:
    """Pieces of documents (pieces, 2), and as targets the token after each."""
    inputs, targets = (
        np.concatenate([tokens[first + ahead : end + ahead] for first, end in pieces])
        for ahead in (0, 1)
    )
    return Batch(
        inputs.astype(np.int64)[None],
        targets.astype(np.int64)[None],
        boundaries=_boundaries(pieces),
    )


def consecutive(documents: Documents, context: int, batch: int) -> Iterator[Batch]:
    """All pieces in their order, so many at a time, for measuring every token exactly once."""
    pieces = documents.pieces(context, ahead=1)
    for first in range(0, len(pieces), batch):
        yield _pack(documents.tokens, pieces[first : first + batch])


class MaskedDocuments:
    """Documents for a model that fills in what is masked, packed into batches.

    Args:
        documents: what to pack.
        batch: contexts that a batch may hold.
        context: most tokens of a piece.
        seed: decides order and masks.
        masker: chooses and masks.
    """

    def __init__(
        self, documents: Documents, batch: int, context: int, seed: int, masker: Masker
    ) -> None:
        self._tokens, self._seed, self._masker = documents.tokens, seed, masker
        self._pieces = documents.pieces(context, ahead=0)
        self._order = _Order(self._pieces[:, 1] - self._pieces[:, 0], batch * context, seed)

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 0; the same whenever it is asked for."""
        pieces = self._pieces[self._order.at(step)]
        texts = [self._tokens[first:end].astype(np.int64) for first, end in pieces]
        random = np.random.default_rng((self._seed, step))
        chosen = np.concatenate(self._masker.choose_in_all(texts, random))
        masked = self._masker.masked(np.concatenate(texts)[None], chosen[None], random)
        return dataclasses.replace(masked, boundaries=_boundaries(pieces))


def _boundaries(pieces: NDArray[np.int64]) -> NDArray[np.int64]:
    lengths = pieces[:, 1] - pieces[:, 0]
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
