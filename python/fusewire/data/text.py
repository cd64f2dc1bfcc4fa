"""Text for language models: reading it, and cutting it into batches.

The order of batches is a function of the step alone, so that a resumed run needs no more than its
step to see what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusewire.data.batch import Batch
from fusewire.data.files import read_regular_file
from fusewire.data.tokenizers import Tokens
from fusewire.errors import InputError


def read_text(path: Path) -> str:
    """Reads a UTF-8 text file.

    Raises:
        InputError: if the file is missing, a directory, unreadable, empty or not UTF-8 text.
    """
    text = read_text_or_nothing(path)
    if not text.strip():
        raise InputError(f"{path} is empty; give a text file with something to learn")
    return text


def read_text_or_nothing(path: Path) -> str:
    """Reads a UTF-8 text file that may be empty, as some in a folder of many are.

    Raises:
        InputError: if the file is missing, a directory, unreadable or not UTF-8 text.
    """
    try:
        content = read_regular_file(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give the path of a UTF-8 text file") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a directory; give the path of a UTF-8 text file") from None
    except OSError as failure:
        raise InputError(f"cannot read {path}: {failure.strerror or failure}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise InputError(
            f"{path} is not UTF-8 text (byte {failure.start} is 0x{content[failure.start]:02x}); "
            "give a text file, converted to UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(f"{path} holds NUL bytes, so it is not text; give a UTF-8 text file")
    return text.replace("\r\n", "\n")


class RandomWindows:
    """Windows from random places, for models that start afresh with every batch.

    Args:
        tokens: token ids to draw from, more than ``context``.
        batch: rows per batch.
        context: tokens per row.
        seed: decides the places.

    Example:
        >>> import numpy as np
        >>> windows = RandomWindows(np.arange(100), batch=2, context=4, seed=0)
        >>> batch = windows.at(7)
        >>> bool((batch.targets == batch.inputs + 1).all())
        True
    """

    def __init__(self, tokens: Tokens, batch: int, context: int, seed: int) -> None:
        self._tokens = tokens
        self._batch = batch
        self._context = context
        self._seed = seed

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        places = np.random.default_rng((self._seed, step))
        starts = places.integers(0, len(self._tokens) - self._context, size=self._batch)
        return _cut(self._tokens, starts, self._context, continues=False)


class ContiguousStreams:
    """Streams read from left to right, for models that carry their state from batch to batch.

    The text is shared out evenly: each row reads its own part, ``context`` tokens a step. When the
    parts are read, all rows start again, and ``continues`` is false. A text that is too short for
    that many parts gives overlapping ones.

    Args:
        tokens: token ids to read, more than ``context``.
        batch: rows per batch.
        context: tokens per row and step.

    Example:
        >>> import numpy as np
        >>> streams = ContiguousStreams(np.arange(17), batch=2, context=4)
        >>> [streams.at(step).inputs.tolist() for step in (0, 1)]
        [[[0, 1, 2, 3], [8, 9, 10, 11]], [[4, 5, 6, 7], [12, 13, 14, 15]]]
    """

    def __init__(self, tokens: Tokens, batch: int, context: int) -> None:
        self._tokens = tokens
        self._context = context
        # The last token is a target only.
        self._steps = max(1, (len(tokens) - 1) // (batch * context))
        last_start = len(tokens) - 1 - self._steps * context
        self._starts = np.linspace(0, last_start, batch).astype(np.int64)

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        within = step % self._steps
        starts = self._starts + within * self._context
        return _cut(self._tokens, starts, self._context, continues=within > 0)


def segments(tokens: Tokens, length: int, batch: int) -> Iterator[Batch]:
    """Cuts tokens into consecutive segments, for measuring every token exactly once.

    Segments are the same whatever the batch size. The last one may be shorter and comes alone.

    Args:
        tokens: token ids, at least 2.
        length: tokens per segment.
        batch: most segments per batch.
    """
    whole = (len(tokens) - 1) // length
    for first in range(0, whole, batch):
        starts = np.arange(first, min(first + batch, whole)) * length
        yield _cut(tokens, starts, length, continues=False)
    rest = len(tokens) - 1 - whole * length
    if rest:
        yield _cut(tokens, np.array([whole * length]), rest, continues=False)


def _cut(tokens: Tokens, starts: NDArray[np.int64], length: int, continues: bool) -> Batch:
    places = starts[:, None] + np.arange(length + 1)
    windows = tokens[places].astype(np.int64)
    return Batch(windows[:, :-1], windows[:, 1:], continues)
