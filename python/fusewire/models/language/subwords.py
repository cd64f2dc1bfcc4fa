"""Words as the sum of their parts: character n-grams, hashed into a table (fastText)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusewire.config import require_declared
from fusewire.errors import InputError

_OFFSET, _PRIME = 0x811C9DC5, 0x01000193


@dataclass(frozen=True)
class Subwords:
    """Which parts a word has (Bojanowski et al. 2017).

    Attributes:
        shortest: characters of the shortest part, those that mark the word's ends among them.
        longest: characters of the longest part.
        buckets: rows of the table of parts; parts of equal hash share one.

    Example:
        >>> Subwords(shortest=3, longest=3).parts("cat")
        ['<ca', 'cat', 'at>']
    """

    shortest: int = 3
    longest: int = 6
    buckets: int = 200_000

    def __post_init__(self) -> None:
        require_declared(self)
        if not 1 <= self.shortest <= self.longest:
            raise InputError(
                f"shortest must be from 1 to longest, got {self.shortest} and {self.longest}"
            )
        if self.buckets < 1:
            raise InputError(f"buckets must be at least 1, got {self.buckets}")

    def parts(self, word: str) -> list[str]:
        """The n-grams of a word between its end marks, but for the whole."""
        marked = f"<{word}>"
        return [
            marked[start : start + length]
            for length in range(self.shortest, min(self.longest, len(marked) - 1) + 1)
            for start in range(len(marked) - length + 1)
        ]

    def rows(self, word: str) -> NDArray[np.int64]:
        """The rows of a word's parts in their table: FNV-1a of the UTF-8 bytes, by buckets."""
        return np.array([_hash(part) % self.buckets for part in self.parts(word)], dtype=np.int64)

    def table(self, words: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of all words as `fusewire.ops.embeddings.WordTables` takes them.

        Each word's own row comes first; the rows of parts lie behind those of all words.
        """
        rows = [
            np.concatenate([[word], self.rows(text) + len(words)])
            for word, text in enumerate(words)
        ]
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in rows])])
        return offsets.astype(np.int64), np.concatenate(rows).astype(np.int64)


def _hash(part: str) -> int:
    code = _OFFSET
    for byte in part.encode("utf-8"):
        code = ((code ^ byte) * _PRIME) & 0xFFFFFFFF
    return code
