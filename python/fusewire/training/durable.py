"""Writing files so that a crash leaves either the old content or the new, never a part."""

from __future__ import annotations

import os
from pathlib import Path

from fusewire.errors import InputError


def write_synced(path: Path, content: bytes) -> None:
    """Writes `content` to `path` and returns once it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes names that were created, renamed or removed in `folder` last through a power cut."""
    if os.name == "nt":  # Windows cannot open a folder, and orders renames by itself.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Replaces `path` by a file with `content`; readers see the old file or the whole new one."""
    unfinished = path.with_name(path.name + ".tmp")
    try:
        write_synced(unfinished, content)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_file_or_refuse(path: Path, content: bytes) -> None:
    """Replaces a file that a person wants to have.

    Raises:
        InputError: it cannot be written; the old file is as it was.
    """
    try:
        replace_file(path, content)
    except OSError as failure:
        raise InputError(f"cannot write {path}: {failure.strerror or failure}") from failure
