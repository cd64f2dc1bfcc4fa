"""Points in space: mixtures with known modes, and arrays of one's own."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusewire.data.files import read_regular_file
from fusewire.errors import InputError

_POINTS = 25_600


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


def load_vectors(path: Path) -> NDArray[np.float32]:
    """Reads vectors of one size from an `.npy` file, (vectors, size).

    Raises:
        InputError: the file is missing or holds something else.
    """
    try:
        array = np.load(io.BytesIO(read_regular_file(path)), allow_pickle=False)
    except OSError as failure:
        raise InputError(f"cannot read {path}: {failure.strerror or failure}") from failure
    except (ValueError, EOFError, MemoryError) as damage:
        raise InputError(f"{path} is not an .npy file of plain numbers: {damage}") from damage
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.ndim != 2:
        raise InputError(f"{path}: expected one array of numbers, (vectors, size)")
    if 0 in array.shape:
        raise InputError(f"{path} holds no vectors: its shape is {array.shape}")
    vectors = array.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise InputError(f"{path}: expected finite numbers")
    return vectors


def fingerprint(array: NDArray[np.generic]) -> str:
    """Hash of an array and its shape."""
    digest = hashlib.sha256(repr((array.shape, str(array.dtype))).encode())
    digest.update(np.ascontiguousarray(array).data)
    return f"sha256:{digest.hexdigest()}"
