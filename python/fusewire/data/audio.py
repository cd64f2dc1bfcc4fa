"""Sound from WAV files, and to them."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusewire.data.classes import Classes, number_classes
from fusewire.data.files import classes_of_folders, read_regular_file
from fusewire.errors import InputError


@dataclass(frozen=True)
class Clips:
    """Recordings of one length, in memory.

    Attributes:
        waves: float32 from -1 to 1, (clips, 1, length).
        classes: of each clip, when the names of the files or their folders tell it.
        rate: numbers per second.
        fingerprint: hash of the waves.
    """

    waves: NDArray[np.float32]
    classes: Classes | None
    rate: int
    fingerprint: str


def load_clips(folder: Path, length: int) -> Clips:
    """Reads the WAV files of a folder, in order of their names, subfolders included.

    Several channels are averaged. A recording is cut at the end, or filled with silence, to
    `length`. Where every name begins with a number and an underscore, as `7_jackson_32.wav`, that
    number is the class; else the subfolders are the classes, where every file is in one and there
    are several.

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
    told = [int(number[1]) for number in numbers if number]
    classes = classes_of_folders(folder, paths)
    if len(told) == len(paths):
        classes = number_classes(told)
    digest = hashlib.sha256(repr((waves.shape, told)).encode())
    digest.update(waves.data)
    return Clips(
        waves=waves,
        classes=classes,
        rate=next(iter(rates)),
        fingerprint=f"sha256:{digest.hexdigest()}",
    )


def read_wav(path: Path) -> tuple[NDArray[np.float32], int]:
    """Reads a WAV file of whole numbers, 8 to 32 bits, or of floating point ones.

    Returns:
        The mean of its channels from -1 to 1, (numbers,), and how many there are per second.

    Raises:
        InputError: the file is missing or not such a file.
    """
    try:
        chunks = _chunks(read_regular_file(path))
        kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
        if kind == _EXTENSIBLE:
            (kind,) = struct.unpack_from("<H", chunks[b"fmt "], 24)
        content = chunks[b"data"]
    except (KeyError, struct.error):
        raise InputError(f"{path} is not a WAV file, or is cut off") from None
    except OSError as failure:
        raise InputError(f"cannot read {path}: {failure.strerror or failure}") from failure
    if (kind, bits) not in _FORMATS or not channels or not content:
        raise InputError(
            f"{path}: expected sound of 8, 16, 24 or 32 bits or floating point numbers, got "
            f"{len(content)} bytes of format {kind}, {bits} bits, {channels} channels"
        )
    width = bits // 8
    numbers = np.frombuffer(content[: len(content) // (width * channels) * width * channels], "u1")
    values = _FORMATS[kind, bits](numbers.reshape(-1, width))
    mean = values.reshape(-1, channels).mean(1, dtype=np.float32)
    if not np.isfinite(mean).all():
        raise InputError(f"{path}: expected finite numbers")
    return mean, rate


def _chunks(content: bytes) -> dict[bytes, bytes]:
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return {}
    found: dict[bytes, bytes] = {}
    place = 12
    while place + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, place)
        # Recorders that write to a pipe promise more than they know; what is there counts.
        found.setdefault(name, content[place + 8 : place + 8 + size])
        place += 8 + size + size % 2
    return found


def _whole(numbers: NDArray[np.uint8]) -> NDArray[np.float32]:
    # The bytes become the upper ones of 32 bits, so that the sign comes by itself.
    wide = np.zeros((len(numbers), 4), np.uint8)
    wide[:, 4 - numbers.shape[1] :] = numbers
    return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2.0**31)


_WHOLE, _REAL, _EXTENSIBLE = 1, 3, 0xFFFE
_FORMATS: dict[tuple[int, int], Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {
    (_WHOLE, 8): lambda numbers: (numbers.astype(np.float32) - 128) / np.float32(128),
    (_WHOLE, 16): _whole,
    (_WHOLE, 24): _whole,
    (_WHOLE, 32): _whole,
    (_REAL, 32): lambda numbers: numbers.copy().view("<f4"),
    (_REAL, 64): lambda numbers: numbers.copy().view("<f8").astype(np.float32),
}


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
