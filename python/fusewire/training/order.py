"""The order in which a run reads its data, known at every step without replaying those before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class ShuffledOrder:
    """Batches that go through all items once per epoch, in a new order each time.

    The order of an epoch depends on the seed and the number of the epoch only, so that a resumed
    run continues at any step without stored state. A batch may span two epochs; none is short.

    Args:
        count: how many items there are.
        batch_size: how many each step takes.
        seed: of the whole run.

    Example:
        >>> order = ShuffledOrder(count=6, batch_size=3, seed=0)
        >>> sorted([*order.batch(0), *order.batch(1)]) == list(range(6))
        True
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self._count, self._batch_size, self._seed = count, batch_size, seed
        self._epoch = -1
        self._permutation = np.empty(0, dtype=np.int64)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Returns the indices of the items that step number `step` (from 0) trains on."""
        parts: list[NDArray[np.int64]] = []
        position, end = step * self._batch_size, (step + 1) * self._batch_size
        while position < end:
            epoch, place = divmod(position, self._count)
            parts.append(self._order_of(epoch)[place : place + end - position])
            position += len(parts[-1])
        return np.concatenate(parts)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            self._permutation = np.random.default_rng((self._seed, epoch)).permutation(self._count)
            self._epoch = epoch
        return self._permutation
