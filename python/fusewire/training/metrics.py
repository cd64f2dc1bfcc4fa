"""The log of a run: one JSON object per line, each with the step it belongs to."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from fusewire.errors import InputError
from fusewire.training.durable import replace_file

Row = dict[str, float | int | None]


class MetricsLog:
    """Appends measurements to a JSON-lines file; every line is flushed when it is written.

    Args:
        path: the file, created when it does not exist.
        resume_step: rows after this step are dropped first, because a resumed run writes them anew.
            0 starts an empty log.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
        >>> with MetricsLog(path) as log:
        ...     log.write(1, loss=2.5)
        >>> read_metrics(path)
        [{'step': 1, 'loss': 2.5}]
    """

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        self._path = path
        kept = [row for row in _rows(path) if _step(row) <= resume_step] if path.exists() else []
        try:
            replace_file(path, "".join(_line(row) for row in kept).encode())
            self._file: IO[str] = path.open("a", encoding="utf-8")
        except OSError as failure:
            raise _unwritable(path, failure) from failure

    def write(self, step: int, **values: float) -> None:
        """Appends one row; numbers that are not finite are written as null."""
        row: Row = {"step": step}
        row.update({k: v if math.isfinite(v) else None for k, v in values.items()})
        try:
            self._file.write(_line(row))
            self._file.flush()
        except OSError as failure:
            raise _unwritable(self._path, failure) from failure

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._file.close()
        except OSError as failure:  # a full disk can refuse what is still buffered
            raise _unwritable(self._path, failure) from failure


def read_metrics(path: Path) -> list[Row]:
    """Reads a log back; a last line cut off by a crash is left out.

    Raises:
        InputError: the file cannot be read or is not such a log.
    """
    try:
        return list(_rows(path))
    except OSError as failure:
        raise InputError(f"cannot read the log {path}: {failure.strerror}") from failure


def _rows(path: Path) -> Iterator[Row]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            if number == len(lines):
                return
            raise InputError(f"{path}, line {number}: not a JSON object") from None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise InputError(f'{path}, line {number}: expected a JSON object with a "step"')
        yield row


def _step(row: Row) -> float:
    return row["step"] or 0


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


def _unwritable(path: Path, failure: OSError) -> InputError:
    return InputError(f"cannot write the log {path}: {failure.strerror}")
