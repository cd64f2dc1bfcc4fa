"""Complete configurations for adversarial training."""

from __future__ import annotations

import math
from pathlib import Path

from fusewire.data.images import load_images
from fusewire.data.samples import FASHION_IMAGES
from fusewire.errors import InputError
from fusewire.models.gan import MlpConfig
from fusewire.training.adversarial_config import GanConfig

# Images smaller than this (channels x height x width) keep one core busy and no more: waking a
# second thread for each of the hundred small operators of a step costs more than it saves.
_SIZE_FOR_THREADS = 4096

# Both networks, the running mean and the optimisers hold about 3.6 kB for each number of an image.
_LARGEST_SIZE = 3 * 256 * 256


def default(data: Path, *, steps: int = 20_000, seed: int = 0, device: str = "cpu") -> GanConfig:
    """Two networks of two hidden layers on any images.

    Args:
        data: an IDX file, an `.npz` or a folder of PNGs, see `fusewire.data.images.load_images`.
        steps: how long to train.
        seed: of weights, noise and order of the data.
        device: where to train.

    Returns:
        The run.

    Raises:
        InputError: the data cannot be used.
    """
    shape = load_images(data).shape
    if math.prod(shape) > _LARGEST_SIZE:
        channels, height, width = shape
        raise InputError(
            f"{data} holds images of {width} x {height} pixels and {channels} channels, too many "
            "for networks of dense layers; scale them down to 256 x 256 or less"
        )
    return GanConfig(
        data=data,
        model=MlpConfig(image_shape=shape),
        steps=steps,
        seed=seed,
        device=device,
        threads=1 if math.prod(shape) < _SIZE_FOR_THREADS else None,
    )


def demo(seed: int = 0) -> GanConfig:
    """The embedded pictures of clothes, in well under a minute on two cores."""
    return default(FASHION_IMAGES, steps=6_000, seed=seed)
