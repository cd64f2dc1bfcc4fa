"""Texts with something missing: what masked and denoising models learn to put back."""

from __future__ import annotations

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

    Args:
        begins_word: which tokens a word begins with, (vocab_size); all of them for single tokens.
        fraction: of tokens that are chosen.
    """

    def __init__(self, begins_word: NDArray[np.bool_], fraction: float = 0.15) -> None:
        self._begins_word, self._fraction = begins_word, fraction
        self.mask = len(begins_word)
        """The token id that stands for what is missing: the first behind the vocabulary."""

    def choose(self, row: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.bool_]:
        """Whole words in random order until the fraction is reached; at least one token."""
        words = np.cumsum(self._begins_word[row].astype(np.int64))
        words = words - words[0]
        wanted = max(1, round(self._fraction * len(row)))
        sizes = np.bincount(words)
        order = random.permutation(len(sizes))
        before = np.cumsum(sizes[order]) - sizes[order]
        chosen = order[(before < wanted) & (before + sizes[order] <= 2 * wanted)]
        if not len(chosen):  # one word is the whole row
            return np.arange(len(row)) < wanted
        return np.isin(words, chosen)

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
        chosen = np.stack([self._masker.choose(row, random) for row in windows])
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
