"""Training images from IDX files, `.npz` archives or folders of pictures."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusewire.data.classes import Classes, number_classes
from fusewire.data.files import classes_of_folders, read_regular_file
from fusewire.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK"
_IDX_UINT8 = b"\x00\x00\x08"
_MOST_DIMENSIONS = 32  # of any NumPy array, before NumPy 2
_PREFERRED_NAMES = ("images", "x_train", "train_images", "x", "data")
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}


@dataclass(frozen=True)
class Images:
    """Images of one size, in memory.

    Attributes:
        pixels: uint8, (images, channels, height, width); 1 channel is grey, 3 are red, green, blue.
        classes: of each image, when the source tells them.
        source: where they came from, for messages.
        fingerprint: hash of the pixels and their shape.
    """

    pixels: NDArray[np.uint8]
    classes: Classes | None
    source: str
    fingerprint: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width


def load_images(path: Path, size: tuple[int, int] | None = None) -> Images:
    """Reads images, whichever of the three forms they have.

    - An IDX file (the format of MNIST), also compressed with gzip. Labels are taken from the file
      whose name has `labels-idx1` in place of `images-idx3`, when it exists.
    - An `.npz` archive with one array of images, (images, height, width) with channels before or
      after or without; uint8, or real numbers between 0 and 1. An array with one whole number per
      image is taken as labels.
    - A folder of PNG, JPEG, WebP or BMP files, in order of their names, subfolders included. When
      grey and colour are mixed, all become colour; transparency is dropped. Where every picture is
      in a subfolder, and there are several, the subfolders are the classes.

    Args:
        path: the file or folder.
        size: height and width to which the pictures of a folder are brought, cut off at two sides
            where their shape is another; None expects pictures of one size.

    Returns:
        The images.

    Raises:
        InputError: nothing usable is there; the message says what was expected and found.

    Example:
        >>> from fusewire.data.samples import FASHION_IMAGES
        >>> load_images(FASHION_IMAGES).pixels.shape
        (2000, 1, 28, 28)
    """
    try:
        if path.is_dir():
            pixels, classes = _read_folder(path, size)
        else:
            if size is not None:
                raise InputError(f"size is for folders of pictures, and {path} is a file")
            pixels, classes = _read_file(path)
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist; expected an IDX file, an .npz or a folder of pictures"
        ) from None
    except OSError as failure:
        raise InputError(f"cannot read {path}: {failure.strerror or failure}") from failure
    if len(pixels) == 0:
        raise InputError(f"{path} holds no images")
    if 0 in pixels.shape:
        raise InputError(f"{path} holds images without pixels: {_size(pixels[0])}")
    pixels = np.ascontiguousarray(pixels)
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.data)
    return Images(pixels, classes, str(path), f"sha256:{digest.hexdigest()}")


def _read_file(path: Path) -> tuple[NDArray[np.uint8], Classes | None]:
    content = read_regular_file(path)
    if not content:
        raise InputError(f"{path} is empty")
    if content.startswith(_ZIP_MAGIC):
        return _read_npz(path, content)
    array = _read_idx(path, content)
    if array.ndim not in (3, 4):
        raise InputError(
            f"{path}: expected an IDX file of images (3 or 4 dimensions), got {array.ndim}"
        )
    labels_path = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    classes = None
    if labels_path != path and labels_path.exists():
        labels = _read_idx(labels_path, labels_path.read_bytes())
        if labels.shape != (len(array),):
            raise InputError(
                f"{labels_path} holds {labels.size} labels, but {path} holds {len(array)} images"
            )
        classes = number_classes(labels)
    return _channels_first(array, str(path)), classes


def _read_idx(path: Path, content: bytes) -> NDArray[np.uint8]:
    # Two zero bytes, the element type, the number of dimensions, each as a big-endian uint32.
    if content.startswith(_GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as damage:
            raise InputError(f"{path} is damaged or cut off: {damage}") from damage
    if not content.startswith(_IDX_UINT8):
        raise InputError(
            f"{path} starts with the bytes {content[:4].hex(' ') or '(none)'}; "
            "expected an IDX file of bytes (00 00 08 ..), an .npz or a folder of pictures"
        )
    dimensions = content[3] if len(content) > 3 else 0
    if dimensions > _MOST_DIMENSIONS:
        raise InputError(f"{path} is damaged: its header names {dimensions} dimensions")
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise InputError(f"{path} is cut off inside its header")
    sizes = [int(size) for size in np.frombuffer(content, ">u4", dimensions, 4)]
    expected = start + math.prod(sizes)
    if len(content) != expected:
        raise InputError(
            f"{path} is cut off or damaged: "
            f"its header promises {expected} bytes, it has {len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def _read_npz(path: Path, content: bytes) -> tuple[NDArray[np.uint8], Classes | None]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            members = {name: archive[name] for name in archive.files}
    # NotImplementedError: a compression that zipfile lacks; RuntimeError: a password;
    # MemoryError: a header that promises more than a machine can hold.
    except (
        OSError,
        ValueError,
        EOFError,
        RuntimeError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as damage:
        raise InputError(f"{path} is not an .npz of plain arrays: {damage}") from damage
    # Other files in the archive come as bytes.
    arrays = {name: array for name, array in members.items() if isinstance(array, np.ndarray)}
    candidates = [name for name, array in arrays.items() if array.ndim in (3, 4)]
    preferred = [name for name in _PREFERRED_NAMES if name in candidates]
    if not candidates or (len(candidates) > 1 and not preferred):
        held = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
        raise InputError(f"{path}: expected one array of images with 3 or 4 dimensions, got {held}")
    name = (preferred or candidates)[0]
    array = arrays[name]
    if np.issubdtype(array.dtype, np.complexfloating) or array.dtype.kind not in "buif":
        raise InputError(f"{path}: expected pixels as numbers, but {name} holds {array.dtype}")
    labels = [
        other
        for other in arrays.values()
        if other.shape == (len(array),) and other.dtype.kind in "iu"
    ]
    where = f"{path}, array {name}"
    classes = number_classes(labels[0]) if labels else None
    return _channels_first(_to_bytes(array, where), where), classes


def _to_bytes(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if array.dtype == np.uint8 or array.size == 0:
        return array.astype(np.uint8)
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    low, high = array.min(), array.max()
    largest = 1 if array.dtype.kind == "f" else 255
    if not (low >= 0 and high <= largest):  # NaN fails too
        raise InputError(
            f"{where}: expected pixels from 0 to {largest} in {array.dtype}, got {low} to {high}"
        )
    scaled = np.rint(array * 255) if array.dtype.kind == "f" else array
    return scaled.astype(np.uint8)


def _channels_first(array: NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
    if array.ndim == 3:
        return array[:, np.newaxis]
    if array.shape[1] in (1, 3):
        return array
    if array.shape[3] in (1, 3):
        return array.transpose(0, 3, 1, 2)
    raise InputError(f"{where}: expected images with 1 or 3 channels, got the shape {array.shape}")


def _read_folder(
    folder: Path, size: tuple[int, int] | None
) -> tuple[NDArray[np.uint8], Classes | None]:
    paths = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in _FORMATS and not path.is_dir()
    )
    if not paths:
        raise InputError(f"{folder} holds no {', '.join(_FORMATS)} files")
    images = [_read_picture(path, size) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape[1:] != images[0].shape[1:]:
            raise InputError(
                f"images differ in size: {paths[0]} has {_size(images[0])}, "
                f"{path} has {_size(image)}; give a size to bring them to"
            )
    if any(len(image) == 3 for image in images):
        images = [np.broadcast_to(image, (3, *image.shape[1:])) for image in images]
    return np.stack(images), classes_of_folders(folder, paths)


def _read_picture(path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps, UnidentifiedImageError  # slow to import, and only used here

    kind = _FORMATS[path.suffix.lower()]
    try:
        with Image.open(io.BytesIO(read_regular_file(path)), formats=[kind]) as image:
            upright = ImageOps.exif_transpose(image)
            pixels = _pixels_of(upright)
    except UnidentifiedImageError:
        raise InputError(f"{path} is not a {kind}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as damage:
        raise InputError(f"{path} is not a readable {kind}: {damage}") from damage
    if size is None or pixels.shape[1:] == size:
        return pixels
    planes = [
        np.asarray(ImageOps.fit(Image.fromarray(plane), size[::-1], Image.Resampling.LANCZOS))
        for plane in pixels
    ]
    return np.stack(planes)


def _pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # 16 bits of grey
        return (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)[np.newaxis]
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))[np.newaxis]
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def _size(image: NDArray[np.uint8]) -> str:
    _, height, width = image.shape
    return f"{width} x {height} pixels"
