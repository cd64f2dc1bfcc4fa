"""Texts with something missing: what masked and denoising models learn to put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusewire.data.batch import IGNORED, Batch
from fusewire.data.tokenizers import Tokens

_MEAN_SPAN = 3.0


class Masker:
    """Chooses whole words for prediction and masks them.

    Of the chosen tokens 80 % become the mask, 10 % a random token, and 10 % stay as they are
    (Devlin et al. 2019): a model that fills in must also doubt what it sees.

    Of a word that has more than twice the tokens that are chosen in a row, only parts are: nothing
    would be left to tell it from.

    Args:
        begins_word: which tokens a word begins with, (vocab_size); all of them for single tokens.
        fraction: of tokens that are chosen.
    """

    def __init__(self, begins_word: NDArray[np.bool_], fraction: float = 0.15) -> None:
        self._begins_word, self._fraction = begins_word, fraction
        self.mask = len(begins_word)
        """The token id that stands for what is missing: the first behind the vocabulary."""

    def choose(self, row: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.bool_]:
        """Whole words in random order until the fraction is reached, which it is on average.

        The last one would exceed it. It is chosen with the probability that makes up for that, so
        that of a short row there may be none.
        """
        wanted = self._fraction * len(row)
        words = self._words(row, most=max(1, round(wanted)))
        sizes = np.bincount(words)
        order = random.permutation(len(sizes))
        before = np.cumsum(sizes[order]) - sizes[order]
        return np.isin(words, order[(wanted - before) > random.random() * sizes[order]])

    def choose_in_all(
        self, rows: Sequence[NDArray[np.int64]], random: np.random.Generator
    ) -> list[NDArray[np.bool_]]:
        """What is chosen in each row of a batch; at least one token."""
        chosen = [self.choose(row, random) for row in rows]
        if not any(row.any() for row in chosen):
            row = int(random.integers(len(rows)))
            chosen[row][random.integers(len(rows[row]))] = True
        return chosen

    def _words(self, row: NDArray[np.int64], most: int) -> NDArray[np.int64]:
        """The number of each token's word, from 0; long words are cut into pieces of so many."""
        begins = self._begins_word[row].copy()
        begins[0] = True
        firsts = np.flatnonzero(begins)
        sizes = np.diff(firsts, append=len(row))
        within = np.arange(len(row)) - np.repeat(firsts, sizes)
        begins |= (np.repeat(sizes, sizes) > 2 * most) & (within % most == 0)
        return np.cumsum(begins) - 1

    def masked(
        self, texts: NDArray[np.int64], chosen: NDArray[np.bool_], random: np.random.Generator
    ) -> Batch:
        """Texts (batch, seq_len) in which what was chosen is masked."""
        fate = random.random(texts.shape)
        inputs = np.where(chosen & (fate < 0.8), self.mask, texts)
        drawn = random.integers(0, self.mask, size=texts.shape)
        inputs = np.where(chosen & (fate >= 0.9), drawn, inputs)
        return Batch(inputs, np.where(chosen, texts, IGNORED))


class MaskedWindows:
    """Windows from random places in which whole words are masked.

    Args:
        tokens: token ids to draw from, at least ``context``.
        batch: rows per batch.
        context: tokens per row.
        seed: decides places and masks.
        masker: chooses and masks.

    Example:
        >>> import numpy as np
        >>> masker = Masker(np.ones(100, dtype=bool))
        >>> batch = MaskedWindows(np.arange(100), 4, 50, 0, masker).at(3)
        >>> int((batch.targets != IGNORED).sum()), masker.mask
        (32, 100)
    """

    def __init__(self, tokens: Tokens, batch: int, context: int, seed: int, masker: Masker) -> None:
        self._tokens, self._batch, self._context, self._seed = tokens, batch, context, seed
        self._masker = masker

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 0; the same whenever it is asked for."""
        random = np.random.default_rng((self._seed, step))
        starts = random.integers(0, len(self._tokens) - self._context + 1, size=self._batch)
        windows = self._tokens[starts[:, None] + np.arange(self._context)].astype(np.int64)
        chosen = np.stack(self._masker.choose_in_all(windows, random))
        return self._masker.masked(windows, chosen, random)


@dataclass(frozen=True)
class PairBatch:
    """Sources and targets of one step, padded at their ends.

    Attributes:
        source: token ids, (batch, source_len).
        source_lengths: those that are no padding, (batch).
        inputs: what the decoder reads: the begin token and the target, (batch, target_len).
        targets: what follows each, the end token at last, `IGNORED` behind it.
    """

    source: NDArray[np.int64]
    source_lengths: NDArray[np.int64]
    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]

    @property
    def predicted(self) -> int:
        """Tokens to be predicted."""
        return int(np.count_nonzero(self.targets != IGNORED))


def make_pairs(
    sources: list[NDArray[np.int64]], targets: list[NDArray[np.int64]], begin: int, end: int
) -> PairBatch:
    """Pads sources and targets; the decoder's input is its target, shifted by the begin token."""
    lengths = np.array([len(source) for source in sources])
    width = 1 + max(len(target) for target in targets)
    source = np.zeros((len(sources), int(lengths.max())), dtype=np.int64)
    inputs = np.full((len(targets), width), end, dtype=np.int64)
    wanted = np.full((len(targets), width), IGNORED, dtype=np.int64)
    for row, (given, target) in enumerate(zip(sources, targets, strict=True)):
        source[row, : len(given)] = given
        inputs[row, 0] = begin
        inputs[row, 1 : 1 + len(target)] = target
        wanted[row, : len(target)] = target
        wanted[row, len(target)] = end
    return PairBatch(source, lengths, inputs, wanted)


class NoisyWindows:
    """Windows and what is left of them when spans are replaced by one mask each (BART's infilling).

    Args:
        tokens: token ids to draw from, at least ``context``.
        batch: rows per batch.
        context: tokens per target.
        seed: decides places and spans.
        vocab_size: ids behind it are the mask, begin and end tokens, in this order.
        fraction: of tokens that go missing, in spans of 3 on average.
    """

    def __init__(
        self,
        tokens: Tokens,
        batch: int,
        context: int,
        seed: int,
        vocab_size: int,
        fraction: float = 0.3,
    ) -> None:
        self._tokens, self._batch, self._context, self._seed = tokens, batch, context, seed
        self._fraction = fraction
        self.mask, self.begin, self.end = vocab_size, vocab_size + 1, vocab_size + 2

    def at(self, step: int) -> PairBatch:
        """The batch of a step, counted from 0; the same whenever it is asked for."""
        random = np.random.default_rng((self._seed, step))
        starts = random.integers(0, len(self._tokens) - self._context + 1, size=self._batch)
        windows = [self._tokens[start : start + self._context].astype(np.int64) for start in starts]
        noisy = [self.noisy(window, random) for window in windows]
        return make_pairs(noisy, windows, self.begin, self.end)

    def noisy(self, window: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        """A window in which spans have become one mask each."""
        missing = np.zeros(len(window), dtype=np.bool_)
        wanted = max(1, round(self._fraction * len(window)))
        while missing.sum() < wanted:
            left = wanted - int(missing.sum())
            span = min(max(1, int(random.poisson(_MEAN_SPAN))), left)
            start = int(random.integers(0, len(window) - span + 1))
            missing[start : start + span] = True
        follows = np.concatenate([[False], missing[:-1]]) & missing
        return np.where(missing, self.mask, window)[~follows]
