"""Many images in one PNG."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fusewire.training.durable import replace_file_or_refuse

_GAP = 2  # pixels between images, before enlarging
_GAP_GREY = 64
_PREFERRED_WIDTH = 960  # pixels; small images are enlarged by whole factors up to here


def image_grid(images: NDArray[np.uint8], columns: int | None = None) -> NDArray[np.uint8]:
    """Lays images out in rows.

    Args:
        images: (images, channels, height, width), 1 or 3 channels.
        columns: images in a row; by default about as many as there are rows.

    Returns:
        One image, (grid height, grid width, channels).
    """
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cell_height, cell_width = height + _GAP, width + _GAP
    grid = np.full(
        (rows * cell_height + _GAP, columns * cell_width + _GAP, channels), _GAP_GREY, np.uint8
    )
    for index, image in enumerate(images):
        top = index // columns * cell_height + _GAP
        left = index % columns * cell_width + _GAP
        grid[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return grid


def write_image_grid(images: NDArray[np.uint8], path: Path, columns: int | None = None) -> None:
    """Writes the grid of `images` to a PNG, enlarged when they are small.

    Args:
        images: (images, channels, height, width), 1 or 3 channels.
        path: the PNG; an older file is replaced.
        columns: images in a row; by default about as many as there are rows.

    Raises:
        InputError: the file cannot be written.
    """
    grid = image_grid(images, columns)
    factor = max(1, _PREFERRED_WIDTH // grid.shape[1])
    enlarged = grid.repeat(factor, axis=0).repeat(factor, axis=1)
    content = io.BytesIO()
    Image.fromarray(enlarged[..., 0] if enlarged.shape[2] == 1 else enlarged).save(content, "PNG")
    replace_file_or_refuse(path, content.getvalue())
