"""Words for word vectors: sentences of a text, and a vocabulary with its frequencies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusewire.errors import InputError

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


def sentences(pieces: Iterable[str]) -> Iterator[list[str]]:
    r"""The words of each paragraph, in lower case: letters, with apostrophes between them.

    Example:
        >>> list(sentences(["The cat's mat.\n\nTwo\ndogs"]))
        [['the', "cat's", 'mat'], ['two', 'dogs']]
    """
    rest = ""
    for piece in pieces:
        *paragraphs, rest = re.split(r"\n\s*\n", rest + piece)
        yield from filter(None, map(_words, paragraphs))
    if words := _words(rest):
        yield words


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


@dataclass(frozen=True)
class Vocabulary:
    """The words that come often enough, the most frequent first.

    Attributes:
        words: the words.
        counts: how often each comes, (words).
    """

    words: tuple[str, ...]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, text: Iterable[list[str]], least: int) -> Vocabulary:
        """The words that come at least so often in sentences.

        Raises:
            InputError: there are fewer than two.
        """
        counted = Counter(word for sentence in text for word in sentence)
        found = sorted(
            ((word, count) for word, count in counted.items() if count >= least),
            key=lambda item: (-item[1], item[0]),
        )
        if len(found) < 2:
            raise InputError(
                f"{len(found)} words come at least {least} times; give a longer text or a smaller "
                "--least-count"
            )
        counts = np.array([count for _, count in found], dtype=np.int64)
        return cls(tuple(word for word, _ in found), counts)

    def keep(self, sample: float) -> NDArray[np.float64]:
        r"""The probability with which each word of a text is read (Mikolov et al. 2013).

        .. math:: \sqrt{t / f} + t / f

        with ``f`` the word's frequency and ``t`` the sample; 0 reads every word.
        """
        if sample <= 0:
            return np.ones(len(self.words))
        ratio = sample * self.counts.sum() / self.counts
        return np.asarray(np.minimum(np.sqrt(ratio) + ratio, 1.0))

    def noise(self, exponent: float = 0.75) -> NDArray[np.float64]:
        """How often each word is drawn, relative to the others."""
        return np.asarray(self.counts.astype(np.float64) ** exponent)

    def encode(self, text: Iterable[list[str]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The known words of sentences as ids, and where sentences begin and the last one ends."""
        places = {word: place for place, word in enumerate(self.words)}
        ids: list[int] = []
        ends = [0]
        for sentence in text:
            ids.extend(places[word] for word in sentence if word in places)
            if len(ids) > ends[-1]:
                ends.append(len(ids))
        return np.array(ids, dtype=np.int64), np.array(ends, dtype=np.int64)
