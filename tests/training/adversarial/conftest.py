"""Small data sets that several of these files read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusewire.data.audio import wav_bytes

RATE = 1000


@pytest.fixture
def data(tmp_path: Path) -> Path:
    source = np.random.default_rng(0)
    np.savez(
        tmp_path / "images.npz",
        images=source.integers(0, 256, (60, 8, 8), dtype=np.uint8),
        labels=np.arange(60) % 3,
    )
    np.save(tmp_path / "vectors.npy", source.standard_normal((30, 5)))
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog ran for the hat")
    (tmp_path / "sound").mkdir()
    for index in range(6):
        tone = np.sin(np.arange(200) * (0.1 + 0.1 * index)).astype(np.float32)
        (tmp_path / "sound" / f"{index % 2}_{index}.wav").write_bytes(wav_bytes(tone, RATE))
    return tmp_path
