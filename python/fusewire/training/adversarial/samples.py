"""Samples of a generator: drawing them, and the file that shows them to a person."""

from __future__ import annotations

import io
import json
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

_SUFFIXES = {
    "images": ".png",
    "audio": ".wav",
    "vectors": ".npy",
    "points": ".png",
    "words": ".txt",
}
_CLIPS_IN_FILE = 10
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
            labels: classes to generate, (count,); by default each in turn, where there are any.

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
        with torch.inference_mode():
            return natural(self.network(noise, labels), self.form)


def draw(network: Generator, count: int, seed: int, labels: Tensor | None = None) -> Tensor:
    """Draws samples as the network gives them, (count, *shape), on the CPU."""
    source = torch.Generator().manual_seed(seed)  # leaves the streams of the run alone
    noise = network.noise(count, source)
    if network.classes and labels is None:
        labels = torch.arange(count) % network.classes
    with torch.inference_mode():
        drawn: Tensor = network(noise, None if labels is None else labels.to(noise.device))
    return drawn.cpu()


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
    return run.path / f"samples{_SUFFIXES[form.medium]}"


def suffix_of(path: Path) -> str:
    """How the names of files end that hold samples of the run in this directory."""
    return _SUFFIXES[_read_format(RunDirectory.open(path, KIND).path / FORMAT).medium]


def write_samples(
    samples: NDArray[np.generic], form: SampleFormat, path: Path, columns: int | None = None
) -> None:
    """Writes samples so that a person can look at them or listen.

    Images become a grid, points a plot, words lines, vectors an array; sound becomes a WAV file of
    the first ten clips one after another, and a PNG of their spectrograms beside it.

    Args:
        samples: as `TrainedGenerator.draw` gives them.
        form: what they are.
        path: the file; an older one is replaced.
        columns: of a grid; by default about as many as rows.

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
        clips = samples.astype(np.float32)[:_CLIPS_IN_FILE, 0]
        pause = np.zeros(int(_SECONDS_BETWEEN_CLIPS * form.rate), np.float32)
        joined = np.concatenate([part for clip in clips for part in (clip, pause)])
        replace_file_or_refuse(path, wav_bytes(joined, form.rate))
        plot_spectrograms(clips, form.rate, path.with_suffix(".png"))
    else:
        content = io.BytesIO()
        np.save(content, samples)
        replace_file_or_refuse(path, content.getvalue())


@memory_refusals()
def sample(path: Path, output: Path | None = None, count: int = PREVIEW, seed: int = 0) -> Path:
    """Draws samples from a trained generator and writes them to a file.

    Args:
        path: the run directory.
        output: the file to write; by default `RUN/samples-SEED` with the suffix of its kind.
        count: how many.
        seed: the same seed gives the same samples.

    Returns:
        The file.

    Raises:
        InputError: the directory is no such run, is damaged, or the file cannot be written.
    """
    generator = TrainedGenerator.open(path)
    suffix = _SUFFIXES[generator.form.medium]
    output = output or path / f"samples-{seed}{suffix}"
    if output.suffix.lower() != suffix:
        raise InputError(f"{output}: expected a name that ends in {suffix}")
    write_samples(generator.draw(count, seed), generator.form, output)
    return output


def _read_format(path: Path) -> SampleFormat:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as failure:
        raise InputError(f"{path} is damaged: {failure}") from failure
    return config_from_json(SampleFormat, content, str(path))
