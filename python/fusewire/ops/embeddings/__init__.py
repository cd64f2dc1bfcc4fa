"""Word vectors by negative sampling, learnt in place by one fused kernel."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusewire import _native

__all__ = ["Objective", "WordTables"]

Objective: TypeAlias = Literal["skip-gram", "cbow"]


class WordTables:
    r"""The two tables of word2vec, and of fastText, which learn from text.

    A window's contexts :math:`h_c` predict its centre's output :math:`u_0`, and not those of
    randomly drawn words, which all contexts of the window share:

    .. math:: -\sum_c \Big[\ln\sigma(h_c \cdot u_0) + \sum_{o>0} \ln\sigma(-h_c \cdot u_o)\Big]

    In skip-gram each word around the centre is a context, in the continuous bag of words their
    mean is. Results are equal to the last bit for any number of threads.

    Args:
        input: ``(rows, dim)``, float32: a row for each word, and behind them those of parts.
        output: ``(words, dim)``, float32; usually zeros at first.
        keep: ``(words)``, the probability with which a word of the text is read.
        noise: ``(words)``, how often a word is drawn, relative to the others.
        parts: ``(offsets, rows)`` with ``words + 1`` offsets: word ``w`` is the mean of the input
            rows ``rows[offsets[w]:offsets[w + 1]]``; without it, a word is its own row.

    Raises:
        TypeError: If an array is of another type.
        ValueError: If shapes or values do not fit together.

    Example:
        >>> import numpy as np
        >>> table = np.random.default_rng(0).random((3, 8), np.float32) - 0.5
        >>> tables = WordTables(table, np.zeros((3, 8), np.float32), np.ones(3), np.ones(3))
        >>> words, ends = np.array([0, 1] * 90), np.arange(0, 181, 2)
        >>> losses = [tables.train(words, ends, learning_rates=(0.5, 0.5)) for _ in range(9)]
        >>> losses[-1] < 0.9 * losses[0]
        True
    """

    def __init__(
        self,
        input: NDArray[np.float32],
        output: NDArray[np.float32],
        keep: NDArray[np.float64],
        noise: NDArray[np.float64],
        parts: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    ) -> None:
        self._tables = _native.WordTables(input, output, keep, noise, parts)

    def train(
        self,
        words: NDArray[np.int64],
        sentences: NDArray[np.int64] | None = None,
        objective: Objective = "skip-gram",
        *,
        window: int = 5,
        negatives: int = 5,
        batch: int = 256,
        learning_rates: tuple[float, float] = (0.025, 0.025),
        seed: int = 0,
    ) -> float:
        """Learns from a text, read once.

        Args:
            words: Word ids, ``(count)``.
            sentences: Where sentences begin and the last one ends, from 0 to ``count``; windows
                do not reach beyond them. One sentence if None.
            objective: ``"skip-gram"`` or ``"cbow"``.
            window: Most words to either side of the centre; each window draws its own reach.
            negatives: Words drawn for each window.
            batch: Most windows whose scores are computed before any of them changes the tables;
            fewer where a word comes so often that it would move too far on them.
            learning_rates: At the beginning and at the end, linear between.
            seed: Decides what is drawn.

        Returns:
            The mean loss of a pair of context and output, in nats.

        Raises:
            TypeError: If an array is of another type.
            ValueError: If a word or an option is out of range.
        """
        if sentences is None:
            sentences = np.array([0, len(words)])
        loss, pairs = self._tables.train(
            words, sentences, objective, window, negatives, batch, learning_rates, seed
        )
        return loss / max(pairs, 1)

    def input(self) -> NDArray[np.float32]:
        """A copy of the input table, ``(rows, dim)``."""
        return self._tables.input()

    def output(self) -> NDArray[np.float32]:
        """A copy of the output table, ``(words, dim)``."""
        return self._tables.output()

    def __reduce__(self) -> Any:
        raise TypeError("word tables cannot be pickled; keep what input() and output() give")
