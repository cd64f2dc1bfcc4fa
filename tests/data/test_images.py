"""Reading images: every form that works, and a clear word for everything that does not."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusewire.data.images import load_images
from fusewire.data.samples import FASHION_IMAGES, FASHION_LABELS, JARGON_TEXT
from fusewire.errors import InputError


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_embedded_samples() -> None:
    images = load_images(FASHION_IMAGES)
    assert images.pixels.shape == (2000, 1, 28, 28)
    assert images.classes is not None
    assert np.bincount(images.classes.labels).tolist() == [200] * 10
    text = JARGON_TEXT.read_text(encoding="ascii")
    assert len(text) > 1_000_000
    folder = FASHION_IMAGES.parent.parent
    kinds = (FASHION_IMAGES, FASHION_LABELS, JARGON_TEXT, *folder.rglob("LICENSE"))
    assert sum(path.stat().st_size for path in kinds) <= 2_000_000
    assert len(kinds) == 5  # a licence beside each


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 5, 7), (3, 1, 5, 7)), ((2, 3, 5, 7), (2, 3, 5, 7)), ((2, 5, 7, 3), (2, 3, 5, 7))],
)
def test_idx(
    tmp_path: Path, compress: bool, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    array = pixels(*shape)
    path = tmp_path / "pictures"
    path.write_bytes(gzip.compress(idx(array)) if compress else idx(array))
    images = load_images(path)
    assert images.pixels.shape == expected
    assert images.shape == expected[1:]
    assert images.pixels.sum() == array.sum()
    assert images.classes is None
    assert images.fingerprint == load_images(path).fingerprint


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, bool])
def test_npz_finds_the_images(tmp_path: Path, dtype: type) -> None:
    array = pixels(4, 5, 6) % 2 * 255
    stored = array.astype(np.int64) if dtype is np.int64 else (array / 255).astype(dtype)
    stored = array if dtype is np.uint8 else stored
    np.savez(tmp_path / "a.npz", targets=np.arange(4), some_name=stored)
    images = load_images(tmp_path / "a.npz")
    assert np.array_equal(images.pixels[:, 0], array)
    assert images.classes is not None
    assert images.classes.labels.tolist() == [0, 1, 2, 3]


def test_npz_with_training_and_test_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=pixels(4, 5, 6), x_test=pixels(2, 5, 6))
    assert len(load_images(tmp_path / "a.npz").pixels) == 4


@pytest.mark.parametrize(
    ("modes", "channels"),
    [(["L", "L"], 1), (["1", "LA"], 1), (["I;16"], 1), (["RGB", "RGBA"], 3), (["L", "P"], 3)],
)
def test_png_folder(tmp_path: Path, modes: list[str], channels: int) -> None:
    for number, mode in enumerate(modes):
        Image.new("RGB", (6, 4), (128, 128, 128)).convert("L" if mode == "I;16" else mode).convert(
            mode
        ).save(tmp_path / f"{number}.PNG")
    (tmp_path / "notes.txt").write_text("not an image")
    assert load_images(tmp_path).pixels.shape == (len(modes), channels, 4, 6)


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def zipped(name: str, content: bytes) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr(name, content)
    return whole.getvalue()


def array_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


BAD_FILES = {
    "missing": (lambda _path: None, "does not exist"),
    "empty": (lambda path: write(path, b""), "is empty"),
    "text": (lambda path: write(path, b"hello"), "starts with the bytes 68 65 6c 6c"),
    "short header": (lambda path: write(path, idx(pixels(3, 5, 7))[:9]), "inside its header"),
    "cut off": (lambda path: write(path, idx(pixels(3, 5, 7))[:-1]), "promises 121 bytes"),
    "too long": (lambda path: write(path, idx(pixels(3, 5, 7)) + b"x"), "promises 121 bytes"),
    "huge header": (
        lambda path: write(path, bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"x"),
        "cut off or damaged",
    ),
    "no images": (lambda path: write(path, idx(pixels(0, 5, 7))), "holds no images"),
    "no pixels": (lambda path: write(path, idx(pixels(3, 0, 7))), "without pixels: 7 x 0"),
    "labels": (lambda path: write(path, idx(pixels(3))), "3 or 4 dimensions"),
    "channels": (lambda path: write(path, idx(pixels(2, 5, 7, 9))), "1 or 3 channels"),
    "cut gzip": (lambda path: write(path, gzip.compress(b"x" * 999)[:-9]), "damaged or cut off"),
    "bare gzip": (lambda path: write(path, gzip.compress(b"")), r"\(none\)"),
    "bare zip": (lambda path: write(path, b"PK\x03\x04zip"), "not an .npz"),
    "text in a zip": (lambda path: write(path, zipped("a.txt", b"hello")), "got nothing"),
    "no array": (lambda path: write(path, zipped("a.npy", b"hello")), "got nothing"),
    "huge array": (
        lambda path: write(path, zipped("a.npy", array_header((10**9, 10**3, 10**3)))),
        "not an .npz",
    ),
    "many dimensions": (
        lambda path: write(path, bytes([0, 0, 8, 255]) + b"\0\0\0\1" * 255 + b"x"),
        "names 255 dimensions",
    ),
    "pipe": (os.mkfifo, "a pipe or a device"),
    "empty folder": (lambda path: path.mkdir(), r"holds no \.png"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_are_refused(tmp_path: Path, case: str) -> None:
    make, message = BAD_FILES[case]
    make(tmp_path / "input")
    with pytest.raises(InputError, match=message) as caught:
        load_images(tmp_path / "input")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "got nothing"),
        ({"a": pixels(3)}, r"got a \(3,\)"),
        ({"a": pixels(3, 4, 4), "b": pixels(3, 4, 4)}, "expected one array"),
        ({"a": np.array([[["x"]]])}, "expected pixels as numbers"),
        ({"a": np.full((1, 2, 2), 300)}, "from 0 to 255"),
        ({"a": np.full((1, 2, 2), np.nan)}, "from 0 to 1 in"),
        ({"a": np.array([[[None]]], dtype=object)}, "plain arrays"),
    ],
)
def test_archives_that_are_refused(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_images(tmp_path / "a.npz")


def test_images_of_unequal_size_are_named(tmp_path: Path) -> None:
    for name, size in [("a.png", (6, 4)), ("b.png", (6, 4)), ("c.png", (6, 5))]:
        Image.new("L", size).save(tmp_path / name)
    with pytest.raises(InputError, match=r"a\.png has 6 x 4 pixels, .*c\.png has 6 x 5 pixels"):
        load_images(tmp_path)


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("webp", "WEBP"), ("bmp", "BMP")])
def test_folders_of_other_formats(tmp_path: Path, suffix: str, kind: str) -> None:
    Image.new("RGB", (6, 4), (200, 100, 50)).save(tmp_path / f"a.{suffix}", format=kind)
    read = load_images(tmp_path).pixels
    assert read.shape == (1, 3, 4, 6)
    assert abs(read[0, :, 0, 0].astype(int) - [200, 100, 50]).max() < 12


def test_pictures_of_any_size_are_brought_to_one(tmp_path: Path) -> None:
    for name, size in [("a.png", (6, 4)), ("b.png", (30, 50))]:
        Image.new("L", size, 77).save(tmp_path / name)
    read = load_images(tmp_path, size=(8, 5)).pixels
    assert read.shape == (2, 1, 8, 5)
    assert (read == 77).all()
    np.savez(tmp_path / "a.npz", images=pixels(3, 4, 4))
    with pytest.raises(InputError, match="size is for folders"):
        load_images(tmp_path / "a.npz", size=(8, 5))


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    picture = Image.new("L", (6, 4))
    picture.getexif()[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "a.jpg", exif=picture.getexif())
    assert load_images(tmp_path).shape == (1, 6, 4)


def test_subfolders_are_classes(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "ant/old/9.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 4)).save(tmp_path / name)
    classes = load_images(tmp_path).classes
    assert classes is not None
    assert classes.labels.tolist() == [0, 1, 1]
    assert classes.names == ("ant", "cat")
    assert load_images(tmp_path / "cat").classes is None
    Image.new("L", (6, 4)).save(tmp_path / "none.png")
    assert load_images(tmp_path).classes is None


def test_folders_named_like_pictures_are_searched(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    Image.new("L", (6, 4)).save(tmp_path / "a.png" / "b.png")
    assert len(load_images(tmp_path).pixels) == 1


def test_a_picture_of_another_format_is_named(tmp_path: Path) -> None:
    Image.new("L", (6, 4)).save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(InputError, match=r"a\.png is not a PNG"):
        load_images(tmp_path)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(InputError, match="cannot read x"):
        load_images(Path("x" * 999))


def test_damaged_png_is_named(tmp_path: Path) -> None:
    Image.fromarray(pixels(40, 40)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"a\.png is not a readable PNG"):
        load_images(tmp_path)


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images-idx3-ubyte").write_bytes(idx(pixels(3, 5, 7)))
    (tmp_path / "labels-idx1-ubyte").write_bytes(idx(pixels(2)))
    with pytest.raises(InputError, match=r"2 labels, but .* holds 3 images"):
        load_images(tmp_path / "images-idx3-ubyte")
