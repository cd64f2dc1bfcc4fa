"""Random numbers of a training step, known from its number alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray
from torch import Tensor


class Draws:
    """The random numbers of one step, row by row of its batch.

    They come from a counter-based generator whose key is the seed and the step: a resumed run
    draws them anew without stored state. All processes draw those of the whole batch and keep
    their rows, so that the numbers do not depend on how many share it.

    Args:
        seed: of the run.
        step: of the run.
        batch: rows of the whole batch.
        rows: those to keep; all when not given.
        device: where the numbers are wanted.

    Example:
        >>> whole, half = Draws(7, 3, batch=4), Draws(7, 3, batch=4, rows=slice(2, 4))
        >>> torch.equal(whole.normal(5)[2:], half.normal(5))
        True
    """

    def __init__(
        self,
        seed: int,
        step: int,
        batch: int,
        rows: slice | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        key = _Key(seed, step)
        self._source = np.random.Generator(np.random.Philox(key))  # type: ignore[arg-type]
        self._batch, self._rows, self._device = batch, rows or slice(0, batch), device

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (rows, *shape)."""
        return self._keep(self._source.standard_normal((self._batch, *shape), dtype=np.float32))

    def uniform(self, *shape: int) -> Tensor:
        """Numbers from 0 to below 1, (rows, *shape)."""
        return self._keep(self._source.random((self._batch, *shape), dtype=np.float32))

    def integers(self, bound: int) -> Tensor:
        """Whole numbers from 0 to below `bound`, (rows,)."""
        return self._keep(self._source.integers(bound, size=self._batch))

    def _keep(self, drawn: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.from_numpy(drawn[self._rows]).to(self._device)


class _Key(ISeedSequence):
    """The key itself, in the place of what NumPy would draw from the system and then discard."""

    def __init__(self, *words: int) -> None:
        self._words = np.array(words, dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: object = np.uint64) -> NDArray[np.uint64]:  # noqa: ARG002
        return self._words
