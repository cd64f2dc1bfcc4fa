"""Samples of a generator: drawing them, and the file that shows them to a person."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusewire.config import config_from_json
from fusewire.data.audio import wav_bytes
from fusewire.data.words import spell
from fusewire.errors import InputError
from fusewire.models.gan import Generator
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import SampleFormat
from fusewire.training.adversarial.players import build_generator
from fusewire.training.checkpoint import load_checkpoint
from fusewire.training.devices import memory_refusals
from fusewire.training.durable import replace_file_or_refuse
from fusewire.training.grids import write_image_grid
from fusewire.training.plots import plot_points, plot_spectrograms
from fusewire.training.run_directory import RunDirectory
from fusewire.training.settings import require_counts, require_seed

KIND = "gan"
"""The kind of run directory that adversarial training fills."""

FORMAT = "format.json"
"""What a sample of the run is, in its directory."""

PREVIEW = 100
"""Samples in a picture of them."""

_CLIPS = 10  # which take a person half a minute to hear

_SUFFIXES = {
    "images": ".png",
    "audio": ".wav",
    "vectors": ".npy",
    "points": ".png",
    "words": ".txt",
}
_PARTS = 500  # samples that are made at a time
_SECONDS_BETWEEN_CLIPS = 0.2


@dataclass(frozen=True)
class TrainedGenerator:
    """A generator from a run directory.

    Attributes:
        network: the running mean of the generator's weights, on the CPU.
        form: what its samples are.
        path: the run directory.
    """

    network: Generator
    form: SampleFormat
    path: Path

    @classmethod
    def open(cls, path: Path) -> TrainedGenerator:
        """Reads the newest checkpoint of a run.

        Raises:
            InputError: the directory is no such run or is damaged.
        """
        run = RunDirectory.open(path, KIND)
        form = _read_format(path / FORMAT)
        network = build_generator(run.config(GanConfig), form).eval().requires_grad_(False)
        load_checkpoint(run.checkpoint_folder, {"generator_average": network})
        return cls(network, form, path)

    def draw(self, count: int, seed: int = 0, labels: Tensor | None = None) -> NDArray[np.generic]:
        """Draws samples.

        Args:
            count: how many.
            seed: the same seed gives the same samples.
            labels: classes to generate, (count,), as places in the format's `class_names`; by
                default each in turn, where there are any.

        Returns:
            (count, *shape): bytes for images, numbers for sound and vectors, and for words the
            places of their letters in the alphabet, (count, letters).

        Raises:
            InputError: the count or the seed is nothing of the kind.
        """
        require_counts(count=count)
        require_seed(seed)
        return natural(draw(self.network, count, seed, labels), self.form)

    def natural(self, samples: Tensor) -> NDArray[np.generic]:
        """Samples as the network gives them to what `draw` returns."""
        return natural(samples, self.form)

    def decode(self, noise: Tensor, labels: Tensor | None = None) -> NDArray[np.generic]:
        """Makes samples of chosen noise, (samples, noise_size); see `draw` for the result."""
        return natural(_make(self.network, noise, labels), self.form)

    def require_name(self, output: Path) -> None:
        """Refuses a file whose name ends in another way than those that hold such samples.

        Raises:
            InputError: it does.
        """
        require_suffix(output, suffix_of(self.form))


def draw(network: Generator, count: int, seed: int, labels: Tensor | None = None) -> Tensor:
    """Draws samples as the network gives them, (count, *shape), on the CPU.

    Args:
        network: the generator.
        count: how many.
        seed: of the noise.
        labels: classes to generate, (count,); by default each in turn, where there are any.
    """
    source = torch.Generator().manual_seed(seed)  # leaves the streams of the run alone
    noise = network.noise(count, source)
    if network.classes and labels is None:
        labels = torch.arange(count) % network.classes
    return _make(network, noise, labels if network.classes else None)


def _make(network: Generator, noise: Tensor, labels: Tensor | None) -> Tensor:
    parts = torch.split(noise, _PARTS)
    told: Sequence[Tensor | None] = [None] * len(parts)
    if labels is not None:
        told = torch.split(labels.to(noise.device), _PARTS)
    with torch.inference_mode():
        made = [network(*part).cpu() for part in zip(parts, told, strict=True)]
    return torch.cat(made)


def natural(drawn: Tensor, form: SampleFormat) -> NDArray[np.generic]:
    """Samples as a network gives them, to bytes, numbers or letters."""
    if form.medium == "images":
        unit = (drawn - form.low) / (1 - form.low)
        return np.asarray((unit * 255).round().to(torch.uint8).numpy())
    if form.medium == "words":
        return np.asarray(drawn.argmax(1).numpy())
    return np.asarray(drawn.numpy())


def preview_path(run: RunDirectory, form: SampleFormat) -> Path:
    """The file in a run directory that shows its samples."""
    return run.path / f"samples{suffix_of(form)}"


def preview_count(form: SampleFormat) -> int:
    """How many samples a person is shown where no number was asked for."""
    return _CLIPS if form.medium == "audio" else PREVIEW


def require_suffix(path: Path, suffix: str) -> None:
    """Refuses a file whose name does not end as its content asks for.

    Raises:
        InputError: it does not.
    """
    if path.suffix.lower() != suffix:
        raise InputError(f"{path}: expected a name that ends in {suffix}")


def format_of(path: Path) -> SampleFormat:
    """What a sample of the run in this directory is.

    Raises:
        InputError: the directory is no such run or is damaged.
    """
    return _read_format(RunDirectory.open(path, KIND).path / FORMAT)


def suffix_of(form: SampleFormat) -> str:
    """How the names of files end that hold such samples."""
    return _SUFFIXES[form.medium]


def write_samples(
    samples: NDArray[np.generic], form: SampleFormat, path: Path, columns: int | None = None
) -> None:
    """Writes samples so that a person can look at them or listen.

    Images become a grid, points a plot, words lines, vectors an array; sound becomes a WAV file of
    all clips one after another, and a PNG of the first hundred's spectrograms beside it.

    Args:
        samples: as `TrainedGenerator.draw` gives them.
        form: what they are.
        path: the file; an older one is replaced.
        columns: of a grid of images or spectrograms; by default about as many as rows, and five.

    Raises:
        InputError: the file cannot be written.
    """
    if form.medium == "images":
        write_image_grid(samples.astype(np.uint8), path, columns)
    elif form.medium == "points":
        plot_points(samples.astype(np.float32), path)
    elif form.medium == "words":
        lines = "\n".join(spell(samples.astype(np.int64))) + "\n"
        replace_file_or_refuse(path, lines.encode())
    elif form.medium == "audio":
        clips = samples.astype(np.float32)[:, 0]
        pause = np.zeros(int(_SECONDS_BETWEEN_CLIPS * form.rate), np.float32)
        joined = np.concatenate([part for clip in clips for part in (clip, pause)])
        replace_file_or_refuse(path, wav_bytes(joined, form.rate))
        plot_spectrograms(clips[:PREVIEW], form.rate, path.with_suffix(".png"), columns or 5)
    else:
        content = io.BytesIO()
        np.save(content, samples)
        replace_file_or_refuse(path, content.getvalue())


@memory_refusals()
def sample(path: Path, output: Path | None = None, count: int | None = None, seed: int = 0) -> Path:
    """Draws samples from a trained generator and writes them to a file.

    Args:
        path: the run directory.
        output: the file to write; by default `RUN/samples-SEED` with the suffix of its kind.
        count: how many; by default ten of sound, a hundred of anything else.
        seed: the same seed gives the same samples.

    Returns:
        The file.

    Raises:
        InputError: the directory is no such run, is damaged, or the file cannot be written.
    """
    generator = TrainedGenerator.open(path)
    form = generator.form
    output = output or path / f"samples-{seed}{suffix_of(form)}"
    generator.require_name(output)
    count = preview_count(form) if count is None else count
    write_samples(generator.draw(count, seed), form, output)
    return output


def _read_format(path: Path) -> SampleFormat:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as failure:
        raise InputError(f"{path} is damaged: {failure}") from failure
    return config_from_json(SampleFormat, content, str(path))
