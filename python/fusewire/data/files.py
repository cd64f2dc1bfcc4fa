"""Whole files and folders of files that a person has named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusewire.data.classes import Classes, number_classes
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


def classes_of_folders(folder: Path, paths: Sequence[Path]) -> Classes | None:
    """The subfolder of each file as its class, where every file is in one and there are several."""
    inside = [path.relative_to(folder).parts for path in paths]
    told = [parts[0] for parts in inside if len(parts) > 1]
    if len(set(told)) < 2 or len(told) < len(paths):
        return None
    return number_classes(told)
