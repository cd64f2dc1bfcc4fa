"""Sound from WAV files, and to them."""

from __future__ import annotations

import hashlib
import io
import re
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusewire.data.files import read_regular_file
from fusewire.errors import InputError

_LARGEST = {1: 128.0, 2: 2.0**15, 3: 2.0**23, 4: 2.0**31}


@dataclass(frozen=True)
class Clips:
    """Recordings of one length, in memory.

    Attributes:
        waves: float32 from -1 to 1, (clips, 1, length).
        labels: one class number per clip, when the names of the files tell it.
        rate: numbers per second.
        fingerprint: hash of the waves.
    """

    waves: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    rate: int
    fingerprint: str


def load_clips(folder: Path, length: int) -> Clips:
    """Reads the WAV files of a folder, in order of their names, subfolders included.

    Several channels are averaged. A recording is cut at the end, or filled with silence, to
    `length`. Where every name begins with a number and an underscore, as `7_jackson_32.wav`, that
    number is the label.

    Args:
        folder: holds the files.
        length: numbers of each clip.

    Raises:
        InputError: there are none, one is no WAV file, or their rates differ.
    """
    if not folder.is_dir():
        reason = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {reason}; expected a folder of WAV files")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".wav")
    if not paths:
        raise InputError(f"{folder} holds no WAV files")
    waves = np.zeros((len(paths), 1, length), np.float32)
    rates: dict[int, Path] = {}
    for row, path in zip(waves, paths, strict=True):
        wave_of_file, rate = read_wav(path)
        rates.setdefault(rate, path)
        row[0, : len(wave_of_file)] = wave_of_file[:length]
    if len(rates) > 1:
        (a, first), (b, second) = list(rates.items())[:2]
        raise InputError(f"rates differ: {first} has {a} Hz, {second} has {b} Hz; make them equal")
    numbers = [re.match(r"(\d+)_", path.name) for path in paths]
    labels = np.array([int(number[1]) for number in numbers if number], np.int64)
    digest = hashlib.sha256(repr((waves.shape, labels.tolist())).encode())
    digest.update(waves.data)
    return Clips(
        waves=waves,
        labels=labels if len(labels) == len(paths) else None,
        rate=next(iter(rates)),
        fingerprint=f"sha256:{digest.hexdigest()}",
    )


def read_wav(path: Path) -> tuple[NDArray[np.float32], int]:
    """Reads a WAV file of whole numbers, 8 to 32 bits.

    Returns:
        The mean of its channels from -1 to 1, (numbers,), and how many there are per second.

    Raises:
        InputError: the file is missing or not such a file.
    """
    try:
        with wave.open(io.BytesIO(read_regular_file(path)), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            content = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as damage:
        raise InputError(f"{path} is not a WAV file of whole numbers: {damage}") from damage
    except OSError as failure:
        raise InputError(f"cannot read {path}: {failure.strerror or failure}") from failure
    if width not in _LARGEST or not content:
        raise InputError(f"{path}: expected sound of 8, 16, 24 or 32 bits, got {8 * width} bits")
    numbers = np.frombuffer(content[: len(content) // (width * channels) * width * channels], "u1")
    if width == 1:
        values = numbers.astype(np.float32) - 128
    else:
        # The bytes become the upper ones of 32 bits, so that the sign comes by itself.
        wide = np.zeros((len(numbers) // width, 4), np.uint8)
        wide[:, 4 - width :] = numbers.reshape(-1, width)
        values = (wide.view("<i4")[:, 0] >> (32 - 8 * width)).astype(np.float32)
    return values.reshape(-1, channels).mean(1) / np.float32(_LARGEST[width]), rate


def wav_bytes(values: NDArray[np.float32], rate: int) -> bytes:
    """Makes a WAV file of 16 bits and one channel.

    Args:
        values: from -1 to 1, (numbers,); what is beyond is cut off.
        rate: numbers per second.

    Example:
        >>> len(wav_bytes(np.zeros(100, np.float32), rate=8000))
        244
    """
    whole = np.rint(np.clip(values, -1, 1) * 32767).astype("<i2")
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(whole.tobytes())
    return content.getvalue()
