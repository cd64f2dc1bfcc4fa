"""Reading whole files that a person has named."""

from __future__ import annotations

from pathlib import Path

from fusewire.errors import InputError


def read_regular_file(path: Path) -> bytes:
    """Reads a file that can be read again.

    A run reads its data anew when it is resumed, and a pipe or a device gives them once, or
    without end.

    Raises:
        InputError: the path is neither a file nor a directory.
        OSError: it cannot be read.
    """
    require_regular(path)
    return path.read_bytes()


def require_regular(path: Path) -> None:
    """Refuses what gives its content once, or without end.

    Raises:
        InputError: the path is neither a file nor a directory.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is not a file but a pipe or a device; save its content to a file")
