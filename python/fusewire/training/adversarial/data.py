"""What adversarial training learns from: samples of one shape, whatever they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fusewire.config import require_declared
from fusewire.data.audio import load_clips
from fusewire.data.classes import Classes
from fusewire.data.images import load_images
from fusewire.data.samples import FASHION_IMAGES, JARGON_TEXT
from fusewire.data.vectors import fingerprint, grid, load_vectors, ring
from fusewire.data.words import ALPHABET, load_words
from fusewire.errors import InputError
from fusewire.models.gan import HeadKind
from fusewire.training.settings import require_counts

DataKind: TypeAlias = Literal["images", "audio", "vectors", "ring8", "grid25", "words"]

# Letters of a word and numbers of a clip when nothing else is asked for.
_WORD_LENGTH = 5
_CLIP_LENGTH = 4096
_MOST_CLASSES = 10_000

_HEADS: dict[str, tuple[HeadKind, ...]] = {
    "images": ("sigmoid", "tanh"),
    "audio": ("tanh",),
    "vectors": ("identity",),
    "points": ("identity",),
    "words": ("softmax",),
}


@dataclass(frozen=True)
class DataConfig:
    """Where samples come from.

    Attributes:
        kind: "images" (see `fusewire.data.images.load_images`), "audio" (a folder of WAV files),
            "vectors" (see `fusewire.data.vectors.load_vectors`), "ring8" and "grid25" (mixtures
            with known modes), or "words" of one length (a text file).
        path: the file or folder; None for mixtures, and for the samples in the package.
        length: numbers of a clip or letters of a word; None takes 4096 and 5.
        size: height and width to which the pictures of a folder are brought; None leaves them.
        label_column: of a `.csv` file of vectors, the one that tells the class.
    """

    kind: DataKind = "images"
    path: Path | None = None
    length: int | None = None
    size: tuple[int, int] | None = None
    label_column: str | None = None

    def __post_init__(self) -> None:
        require_declared(self)
        if self.length is not None:
            require_counts(length=self.length)
            if self.kind not in ("audio", "words"):
                raise InputError(f"length is for audio and words, not for {self.kind}")
        if self.size is not None:
            require_counts(height=self.size[0], width=self.size[1])
            if self.kind != "images" or self.path is None:
                raise InputError("size is for images from a folder")
        if self.label_column is not None and self.kind != "vectors":
            raise InputError(f"a label column is for vectors, not for {self.kind}")
        if self.path is None and self.kind in ("audio", "vectors"):
            raise InputError(f"data of kind {self.kind} need a path")


@dataclass(frozen=True)
class SampleFormat:
    """What a sample is; a run keeps it, so that it can be sampled from without its data.

    Attributes:
        medium: how a sample is shown to a person.
        shape: of one sample, channels first.
        classes: how many there are; 0 when the data have no labels.
        class_names: what the data call them, in the order of the numbers that networks are told;
            none where they have no labels, and in runs made before names were kept.
        rate: numbers of sound per second; 0 for what is no sound.
        low: the least number that stands for a pixel; the largest is 1.
    """

    medium: Literal["images", "audio", "vectors", "points", "words"]
    shape: tuple[int, ...]
    classes: int = 0
    rate: int = 0
    low: float = 0.0
    class_names: tuple[str, ...] = ()

    def require_classes(self) -> int:
        """The number of classes.

        Raises:
            InputError: the data have none.
        """
        if not self.classes:
            raise InputError("conditioning needs data with labels, and these have none")
        return self.classes


@dataclass(frozen=True)
class Samples:
    """All samples of a data set, in the form that takes the least memory.

    Attributes:
        format: what they are.
        stored: bytes of pixels, numbers, or places in the alphabet; samples first.
        labels: one class number per sample, or None.
        fingerprint: hash of all.
    """

    format: SampleFormat
    stored: Tensor
    labels: Tensor | None
    fingerprint: str

    def __len__(self) -> int:
        return len(self.stored)

    def at(self, indices: Tensor) -> Tensor:
        """Some of the samples, in the range of the generator's head, (indices, *shape)."""
        chosen = self.stored.index_select(0, indices)  # which copies whole samples
        if self.format.medium == "images":
            low = self.format.low
            scaled = chosen * ((1 - low) / 255)
            return scaled + low if low else scaled
        if self.format.medium == "words":
            return one_hot(chosen, self.format.shape[0]).transpose(1, 2).float()
        return chosen


def load_samples(config: DataConfig, head: HeadKind) -> Samples:
    """Reads a data set.

    Args:
        config: where it is.
        head: of the generator; pixels are from 0 to 1 for "sigmoid", from -1 to 1 for "tanh".

    Raises:
        InputError: it cannot be used, or such a head cannot make its samples.
    """
    samples = _LOADERS[config.kind](config)
    medium = samples.format.medium
    if head not in _HEADS[medium]:
        raise InputError(f"head must be {' or '.join(_HEADS[medium])} for {medium}, got {head}")
    form = dataclasses.replace(samples.format, low=-1.0 if head == "tanh" else 0.0)
    return dataclasses.replace(samples, format=form)


def _images(config: DataConfig) -> Samples:
    images = load_images(config.path or FASHION_IMAGES, config.size)
    form = SampleFormat("images", images.shape)
    return _with_classes(
        Samples(form, torch.tensor(images.pixels), None, images.fingerprint), images.classes
    )


def _audio(config: DataConfig) -> Samples:
    assert config.path is not None
    clips = load_clips(config.path, config.length or _CLIP_LENGTH)
    form = SampleFormat("audio", clips.waves.shape[1:], rate=clips.rate)
    waves = torch.from_numpy(clips.waves)
    return _with_classes(Samples(form, waves, None, clips.fingerprint), clips.classes)


def _with_classes(samples: Samples, classes: Classes | None) -> Samples:
    if classes is None:
        return samples
    names = classes.names
    if len(names) > _MOST_CLASSES:
        raise InputError(f"there may be {_MOST_CLASSES} classes, and the labels tell {len(names)}")
    return dataclasses.replace(
        samples,
        format=dataclasses.replace(samples.format, classes=len(names), class_names=names),
        labels=torch.from_numpy(classes.labels),
        fingerprint=f"{samples.fingerprint}, labels {fingerprint(classes.labels)}",
    )


def _vectors(config: DataConfig) -> Samples:
    assert config.path is not None
    vectors, classes = load_vectors(config.path, config.label_column)
    return _with_classes(_numbers(vectors, "vectors"), classes)


def _numbers(vectors: np.ndarray, medium: Literal["vectors", "points"]) -> Samples:
    shape = SampleFormat(medium, (vectors.shape[1],))
    return Samples(shape, torch.from_numpy(vectors), None, fingerprint(vectors))


def _words(config: DataConfig) -> Samples:
    letters = load_words(config.path or JARGON_TEXT, config.length or _WORD_LENGTH)
    shape = SampleFormat("words", (len(ALPHABET), letters.shape[1]))
    return Samples(shape, torch.from_numpy(letters), None, fingerprint(letters))


_LOADERS: dict[str, Callable[[DataConfig], Samples]] = {
    "images": _images,
    "audio": _audio,
    "vectors": _vectors,
    "ring8": lambda _: _numbers(ring(8).points(), "points"),
    "grid25": lambda _: _numbers(grid(5).points(), "points"),
    "words": _words,
}
