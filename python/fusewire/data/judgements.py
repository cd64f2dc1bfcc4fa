"""What word vectors are held against: people's judgements of pairs, and analogies."""

from __future__ import annotations

from pathlib import Path

from fusewire.data.text import read_text
from fusewire.errors import InputError


def load_judgements(path: Path) -> list[tuple[str, str, float]]:
    """Pairs of words and how similar people find them, as in WordSim-353 and SimLex-999.

    Args:
        path: two words and a number a line, separated by tabs, commas or spaces; lines that begin
            with ``#``, and a first line without a number, are left out.

    Raises:
        InputError: a line is none of these.
    """
    found: list[tuple[str, str, float]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        columns = line.replace("\t", " ").replace(",", " ").split()
        if not columns or line.startswith("#"):
            continue
        try:
            found.append((columns[0].lower(), columns[1].lower(), float(columns[2])))
        except (IndexError, ValueError):
            if number > 1:
                raise InputError(
                    f"{path}, line {number}: expected two words and a number, got {line!r}"
                ) from None
    return found


def load_analogies(path: Path) -> list[tuple[str, str, str, str]]:
    """Questions "a is to b as c is to d", four words a line; titles begin with ``:``.

    Raises:
        InputError: a line has another number of words.
    """
    found: list[tuple[str, str, str, str]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.lower().split()
        if not words or line.startswith(":"):
            continue
        if len(words) != 4:
            raise InputError(f"{path}, line {number}: expected four words, got {line!r}")
        found.append((words[0], words[1], words[2], words[3]))
    return found
