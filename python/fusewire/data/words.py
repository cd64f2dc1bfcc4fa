"""Words of one length, cut out of a text: short sequences for generators of discrete data."""

from __future__ import annotations

import re
import string
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusewire.data.text import read_text
from fusewire.errors import InputError

ALPHABET = string.ascii_lowercase


def load_words(path: Path, length: int) -> NDArray[np.int64]:
    """The different words of a length that a text holds, in lower case.

    Args:
        path: a UTF-8 text file.
        length: letters of each word.

    Returns:
        Places in the alphabet, (words, length).

    Raises:
        InputError: the text cannot be read or holds no such word.
    """
    found = set(re.findall(rf"(?<![a-z])[a-z]{{{length}}}(?![a-z])", read_text(path).lower()))
    if not found:
        raise InputError(f"{path} holds no word of {length} letters from a to z")
    letters = np.frombuffer("".join(sorted(found)).encode("ascii"), np.uint8).reshape(-1, length)
    return letters.astype(np.int64) - ord("a")


def spell(letters: NDArray[np.int64]) -> list[str]:
    """Places in the alphabet, (words, length), to words.

    Example:
        >>> spell(np.array([[2, 0, 19]]))
        ['cat']
    """
    return ["".join(ALPHABET[letter] for letter in word) for word in letters]
