"""Data sets of every kind from their files, and what is refused."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from fusewire.data.audio import read_wav
from fusewire.errors import InputError
from fusewire.training.adversarial.data import DataConfig, load_samples

RATE = 1000


def test_clips_are_what_was_recorded(data: Path) -> None:
    samples = load_samples(DataConfig("audio", data / "sound", 150), "tanh")
    assert samples.format.shape == (1, 150)
    assert (samples.format.rate, samples.format.classes) == (RATE, 2)
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 0, 0, 1, 1, 1]
    tone = np.sin(np.arange(150) * 0.1)
    np.testing.assert_allclose(samples.at(torch.tensor([0]))[0, 0], tone, atol=1e-4)


@pytest.mark.parametrize(("width", "channels"), [(1, 1), (2, 2), (3, 1), (4, 2)])
def test_wav_files_of_every_width(tmp_path: Path, width: int, channels: int) -> None:
    values = np.repeat(np.linspace(-0.9, 0.9, 50), channels)
    whole = np.rint(values * (2 ** (8 * width - 1) - 1)).astype("<i8")
    content = whole.view("u1").reshape(-1, 8)[:, :width]
    if width == 1:
        content = (content.astype(np.int64) + 128).astype("u1")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((channels, width, RATE, 50, "NONE", ""))
        file.writeframes(content.tobytes())
    read, rate = read_wav(tmp_path / "a.wav")
    assert rate == RATE
    np.testing.assert_allclose(read, np.linspace(-0.9, 0.9, 50), atol=0.01)


def test_wav_files_of_other_makers(tmp_path: Path) -> None:
    """Floating point numbers, the extensible header, chunks before, and a wrong length."""
    values = np.linspace(-0.9, 0.9, 51).astype("<f4")
    real = struct.pack("<HHIIHH", 3, 1, RATE, 4 * RATE, 4, 32)
    extensible = struct.pack("<HHIIHHHHIH14s", 65534, 1, RATE, 2 * RATE, 2, 16, 22, 16, 0, 1, b"")
    whole = np.rint(values * 32767).astype("<i2")
    for header, content in ((real, values.tobytes()), (extensible, whole.tobytes())):
        parts = [(b"junk", b"abc\0"), (b"fmt ", header), (b"data", content)]
        sizes = {b"junk": 3, b"data": 0xFFFFFFFF}
        chunks = [
            name + struct.pack("<I", sizes.get(name, len(inside))) + inside
            for name, inside in parts
        ]
        (tmp_path / "a.wav").write_bytes(b"RIFF\0\0\0\0WAVE" + b"".join(chunks))
        read, rate = read_wav(tmp_path / "a.wav")
        assert rate == RATE
        np.testing.assert_allclose(read, values, atol=1e-4)


def test_vectors_from_tables_and_archives(tmp_path: Path) -> None:
    vectors, labels = np.arange(12.0).reshape(6, 2), np.arange(6) % 3
    np.savez(tmp_path / "a.npz", points=vectors, labels=labels)
    (tmp_path / "a.csv").write_text("x,y\n" + "\n".join(f"{a},{b}" for a, b in vectors))
    for name, classes in (("a.npz", 3), ("a.csv", 0)):
        samples = load_samples(DataConfig("vectors", tmp_path / name), "identity")
        assert torch.equal(samples.at(torch.arange(6)), torch.from_numpy(vectors).float())
        assert samples.format.classes == classes


@pytest.mark.parametrize(
    ("told", "classes", "names"),
    [
        (["10", "9", "9", "-1"], [2, 1, 1, 0], ("-1", "9", "10")),
        (["b c", "a", '"a"', '"z, y"'], [1, 0, 0, 2], ("a", "b c", "z, y")),
    ],
)
def test_a_column_of_a_table_tells_the_class(
    told: list[str], classes: list[int], names: tuple[str, ...], tmp_path: Path
) -> None:
    lines = [f"{number},{word} ,{-number}" for number, word in enumerate(told)]
    table = tmp_path / "a.csv"
    table.write_bytes(("\ufeff x, kind ,y\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode())
    samples = load_samples(DataConfig("vectors", table, label_column="kind"), "identity")
    expected = torch.tensor([[0.0, 0.0], [1.0, -1.0], [2.0, -2.0], [3.0, -3.0]])
    assert torch.equal(samples.at(torch.arange(4)), expected)
    assert samples.labels is not None
    assert samples.labels.tolist() == classes
    assert samples.format.class_names == names


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x,y\n1,2\n", "expected one column called kind, got x, y"),
        ("a.csv", "kind,kind\n1,2\n", "expected one column called kind, got kind, kind"),
        ("a.csv", "", "expected one column called kind"),
        ("a.csv", "x,kind\n", "expected a vector on each line"),
        ("a.csv", "x,kind\n1,a\n2\n", "expected 2 fields on each line, got 2"),
        ("a.csv", "x,kind\n1,a\nsmall,a\n", "expected numbers, got small on line 3"),
        ("a.csv", "kind\na\n", "holds no vectors"),
        ("a.npy", "x", "a label column is one of a .csv file"),
    ],
)
def test_label_columns_that_are_refused(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_samples(DataConfig("vectors", tmp_path / name, label_column="kind"), "identity")
    with pytest.raises(InputError, match="a label column is for vectors, not for images"):
        DataConfig("images", tmp_path / name, label_column="kind")


def test_subfolders_of_sound_are_classes(data: Path) -> None:
    for clip in (data / "sound").glob("*.wav"):
        folder = data / "sound" / ("yes" if clip.name.startswith("0") else "no")
        folder.mkdir(exist_ok=True)
        clip.rename(folder / f"clip{clip.name}")
    samples = load_samples(DataConfig("audio", data / "sound", 150), "tanh")
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert samples.format.class_names == ("no", "yes")


@pytest.mark.parametrize(
    ("kind", "file", "content", "message"),
    [
        ("audio", "missing", None, "does not exist"),
        ("audio", "sound/0_0.wav", None, "is not a folder"),
        ("audio", "sound/0_0.wav", b"RIFF", "is not a folder"),
        ("audio", "empty", "folder", "holds no WAV files"),
        ("vectors", "missing", None, "cannot read"),
        ("vectors", "a.npy", b"hello", "expected an .npy, .npz or .csv file"),
        ("vectors", "a.csv", b"x,y\n1,2\n3\n", "holds no plain numbers"),
        ("vectors", "a.csv", b"x,y\n1,2\n\n3,b\n", "expected numbers, got 3,b on line 4"),
        ("vectors", "a.csv", b",2\n3,4\n", "expected numbers, got ,2 on line 1"),
        ("vectors", "a.csv", b"x,y\n", "expected a vector on each line"),
        ("vectors", "a.csv", b"", "expected a vector on each line"),
        ("vectors", "images.npz", None, "expected one array of two dimensions, got 0"),
        ("words", "a.txt", b"1234", "holds no word of 5 letters"),
    ],
)
def test_data_that_are_refused(
    kind: str, file: str, content: object, message: str, data: Path
) -> None:
    if content == "folder":
        (data / file).mkdir()
    elif isinstance(content, bytes):
        (data / file).write_bytes(content)
    head = {"audio": "tanh", "words": "softmax"}.get(kind, "identity")
    with pytest.raises(InputError, match=message):
        load_samples(DataConfig(kind, data / file), head)


def test_labels_belong_to_the_data(data: Path) -> None:
    config, marks = DataConfig("images", data / "images.npz"), []
    images = np.load(data / "images.npz")["images"]
    for labels in (np.arange(60) % 3, np.arange(60) % 4):
        np.savez(data / "images.npz", images=images, labels=labels)
        marks.append(load_samples(config, "tanh").fingerprint)
    assert marks[0] != marks[1]
    np.savez(
        data / "images.npz", images=np.zeros((10_001, 1, 1), np.uint8), labels=np.arange(10_001)
    )
    with pytest.raises(InputError, match="may be 10000 classes, and the labels tell 10001"):
        load_samples(config, "tanh")


def test_damaged_sound_is_named(data: Path) -> None:
    (data / "sound" / "1_9.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"1_9\.wav is not a WAV file"):
        load_samples(DataConfig("audio", data / "sound", 100), "tanh")


@pytest.mark.parametrize(
    "choices",
    [
        {"kind": "ring8", "length": 3},
        {"kind": "audio"},
        {"kind": "vectors"},
        {"kind": "words", "length": 0},
        {"kind": "images", "size": (8, 8)},
        {"kind": "images", "path": Path("a"), "size": (8, 0)},
    ],
)
def test_data_that_cannot_be_meant(choices: dict) -> None:
    with pytest.raises(InputError):
        DataConfig(**choices)
