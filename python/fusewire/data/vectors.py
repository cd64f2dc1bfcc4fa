"""Points in space: mixtures with known modes, and arrays of one's own."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusewire.data.classes import Classes, number_classes
from fusewire.data.files import read_regular_file
from fusewire.errors import InputError

_POINTS = 25_600
_NPY_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class Mixture:
    """Gaussians of one width around known centres: what a collapsed generator does not cover.

    Attributes:
        centres: (modes, 2).
        deviation: of every Gaussian, in both directions.
    """

    centres: NDArray[np.float32]
    deviation: float

    def points(self, count: int = _POINTS, seed: int = 0) -> NDArray[np.float32]:
        """Draws points, as many of each mode as of the others, (count, 2)."""
        source = np.random.default_rng(seed)
        modes = self.centres[np.arange(count) % len(self.centres)]
        points = modes + self.deviation * source.standard_normal((count, 2))
        return source.permutation(points).astype(np.float32)


def ring(modes: int = 8) -> Mixture:
    """Gaussians of deviation 0.02 on a circle of radius 2 (Metz et al. 2017)."""
    angles = 2 * np.pi * np.arange(modes) / modes
    return Mixture(2 * np.stack((np.cos(angles), np.sin(angles)), 1).astype(np.float32), 0.02)


def grid(side: int = 5) -> Mixture:
    """Gaussians of deviation 0.05 on a square grid with a distance of 2 (Dumoulin et al. 2017)."""
    places = 2.0 * np.arange(side) - (side - 1)
    return Mixture(np.stack(np.meshgrid(places, places), -1).reshape(-1, 2).astype("f4"), 0.05)


def load_vectors(
    path: Path, label_column: str | None = None
) -> tuple[NDArray[np.float32], Classes | None]:
    """Reads vectors of one size, (vectors, size), and their classes where the file has them.

    - An `.npy` file of one array.
    - An `.npz` archive with one array of two dimensions; one whole number per vector beside it is
      taken as its class.
    - A `.csv` file with one vector per line; a first line without any number is one of names, and
      left out.

    Args:
        path: The file.
        label_column: The column of a `.csv` file that tells the class, as its first line calls it.
            Classes are numbered from 0, whole numbers in their order and words in that of the
            alphabet.

    Raises:
        InputError: the file is missing or holds something else, or has no such column.
    """
    read = _READERS.get(path.suffix.lower(), _read_npy)
    if label_column is not None:
        if read is not _read_csv:
            raise InputError(f"{path}: a label column is one of a .csv file")
        read = partial(_read_labelled_csv, column=label_column)
    try:
        array, classes = read(read_regular_file(path))
    except OSError as failure:
        raise InputError(f"cannot read {path}: {failure.strerror or failure}") from failure
    except (ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as bad:
        raise InputError(f"{path} holds no plain numbers: {str(bad).splitlines()[0]}") from bad
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.ndim != 2:
        raise InputError(f"{path}: expected one array of numbers, (vectors, size)")
    if 0 in array.shape:
        raise InputError(f"{path} holds no vectors: its shape is {array.shape}")
    vectors = array.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise InputError(f"{path}: expected finite numbers")
    return vectors, classes


_Read: TypeAlias = tuple[object, Classes | None]


def _read_npy(content: bytes) -> _Read:
    if not content.startswith(_NPY_MAGIC):
        raise ValueError("expected an .npy, .npz or .csv file")
    return np.load(io.BytesIO(content), allow_pickle=False), None


def _read_npz(content: bytes) -> _Read:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = [np.asarray(archive[name]) for name in archive.files]
    vectors = [array for array in arrays if array.ndim == 2]
    if len(vectors) != 1:
        raise ValueError(f"expected one array of two dimensions, got {len(vectors)}")
    labels = [
        array
        for array in arrays
        if array.shape == vectors[0].shape[:1] and array.dtype.kind in "iu"
    ]
    return vectors[0], number_classes(labels[0]) if labels else None


def _read_csv(content: bytes) -> _Read:
    lines = content.decode("utf-8-sig").splitlines()
    named = bool(lines) and not any(map(_is_number, lines[0].split(",")))
    if len(lines) == named:
        raise ValueError("expected a vector on each line")
    try:
        return np.loadtxt(lines[named:], np.float32, delimiter=",", ndmin=2), None
    except ValueError:
        rows = [_Row(number, line.split(",")) for number, line in enumerate(lines, 1) if line]
        _require_numbers(rows[named:])
        raise


def _read_labelled_csv(content: bytes, column: str) -> _Read:
    rows = _rows(content)
    names = [name.strip() for name in rows[0].fields] if rows else []
    if names.count(column) != 1:
        raise ValueError(f"expected one column called {column}, got {', '.join(names)}")
    if len(rows) == 1:
        raise ValueError("expected a vector on each line")
    if wrong := next((row for row in rows if len(row.fields) != len(names)), None):
        raise ValueError(f"expected {len(names)} fields on each line, got {wrong}")
    place = names.index(column)
    told = [row.fields.pop(place).strip() for row in rows[1:]]
    _require_numbers(rows[1:])
    return np.array([row.fields for row in rows[1:]]).astype(np.float32), _classes(told)


@dataclass(frozen=True)
class _Row:
    line: int
    fields: list[str]

    def __str__(self) -> str:
        return f"{','.join(self.fields)} on line {self.line}"


def _rows(content: bytes) -> list[_Row]:
    reader = csv.reader(io.StringIO(content.decode("utf-8-sig")))
    return [_Row(reader.line_num, fields) for fields in reader if fields]


def _require_numbers(rows: list[_Row]) -> None:
    if wrong := next((row for row in rows if not all(map(_is_number, row.fields))), None):
        raise ValueError(f"expected numbers, got {wrong}")


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _classes(told: list[str]) -> Classes:
    try:
        return number_classes([int(word) for word in told])
    except ValueError:
        return number_classes(told)


_READERS: dict[str, Callable[[bytes], _Read]] = {".npz": _read_npz, ".csv": _read_csv}


def fingerprint(array: NDArray[np.generic]) -> str:
    """Hash of an array and its shape."""
    digest = hashlib.sha256(repr((array.shape, str(array.dtype))).encode())
    digest.update(np.ascontiguousarray(array).data)
    return f"sha256:{digest.hexdigest()}"
