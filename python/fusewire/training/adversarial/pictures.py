"""Pictures of what a generator has learnt: between samples, class by class, and over time."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fusewire.errors import InputError
from fusewire.training.adversarial.samples import TrainedGenerator, require_suffix, write_samples
from fusewire.training.devices import memory_refusals
from fusewire.training.durable import replace_file_or_refuse
from fusewire.training.settings import require_counts, require_seed

_SIDE = 10
_MILLISECONDS = 200


@memory_refusals()
def interpolation(path: Path, output: Path, count: int = _SIDE, seed: int = 0) -> Path:
    """Shows ways from one sample to another, a row each.

    Between two points of noise it goes along the sphere, where noise lives, and not through the
    middle, where it never comes from (White 2016).

    Args:
        path: the run directory.
        output: the file to write, as `fusewire.training.adversarial.samples.write_samples` does.
        count: how many ways, with as many samples on each.
        seed: decides the ends.

    Returns:
        The file.

    Raises:
        InputError: the directory is no such run or is damaged, or the file cannot be written or
            is called as such files are not.
    """
    require_counts(count=count)
    require_seed(seed)
    trained = TrainedGenerator.open(path)
    trained.require_name(output)
    source = torch.Generator().manual_seed(seed)
    first, last = (trained.network.noise(count, source) for _ in range(2))
    parts = torch.linspace(0, 1, count)
    noise = torch.stack([spherical(first, last, part) for part in parts], 1).flatten(0, 1)
    labels = None
    if trained.network.classes:  # a row keeps its class
        labels = (torch.arange(count) % trained.network.classes).repeat_interleave(count)
    write_samples(trained.decode(noise, labels), trained.form, output, columns=count)
    return output


@memory_refusals()
def class_rows(path: Path, output: Path, count: int = _SIDE, seed: int = 0) -> Path:
    """Shows each class in a row of its own, the same noise below each other.

    Args:
        path: the run directory, of a generator that is told the class.
        output: the file to write.
        count: samples of each class.
        seed: decides the noise.

    Returns:
        The file.

    Raises:
        InputError: the directory is no such run or is damaged, its generator knows no classes, or
            the file cannot be written or is called as such files are not.
    """
    require_counts(count=count)
    require_seed(seed)
    trained = TrainedGenerator.open(path)
    trained.require_name(output)
    classes = trained.network.classes
    if not classes:
        raise InputError(f"{path} was trained without classes; set conditioning when training")
    noise = trained.network.noise(count, torch.Generator().manual_seed(seed)).repeat(classes, 1)
    labels = torch.arange(classes).repeat_interleave(count)
    write_samples(trained.decode(noise, labels), trained.form, output, columns=count)
    return output


def film(path: Path, output: Path) -> Path:
    """Makes an animated GIF of the pictures that a run kept at its checkpoints.

    Args:
        path: the run directory, trained with `frames`.
        output: the GIF to write.

    Returns:
        The file.

    Raises:
        InputError: the run kept none, or the file cannot be written or is called otherwise.
    """
    require_suffix(output, ".gif")
    kept = sorted((path / "frames").glob("step-*.png"))
    if not kept:
        raise InputError(
            f"{path} has kept no pictures; set frames when training, on "
            "data that are shown as pictures"
        )
    pictures = [_picture(frame) for frame in kept]
    content = io.BytesIO()
    pictures[0].save(
        content,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=_MILLISECONDS,
        loop=0,
    )
    replace_file_or_refuse(output, content.getvalue())
    return output


def spherical(first: Tensor, last: Tensor, part: Tensor) -> Tensor:
    r"""A point on the way from one vector to another along a sphere.

    :math:`\frac{\sin((1 - t) ω)}{\sin ω} a + \frac{\sin(t ω)}{\sin ω} b`, with ω the angle between

    Args:
        first: a, (batch, size).
        last: b, (batch, size).
        part: t, from 0 to 1.

    Example:
        >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> spherical(a, b, torch.tensor(0.5))
        tensor([[0.7071, 0.7071]])
    """
    cosine = torch.cosine_similarity(first, last, dim=1).clamp(-1 + 1e-6, 1 - 1e-6)
    angle = cosine.acos()[:, None]
    return (((1 - part) * angle).sin() * first + (part * angle).sin() * last) / angle.sin()


def _picture(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.convert("P", palette=Image.Palette.ADAPTIVE)
    except (OSError, ValueError) as damage:
        raise InputError(f"{path} is not a readable PNG: {damage}") from damage
