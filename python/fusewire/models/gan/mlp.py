"""A generator and a discriminator of two hidden layers each, for images of any shape."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fusewire.errors import InputError
from fusewire.nn import Linear

_LEAK = 0.2


@dataclass(frozen=True)
class MlpConfig:
    """Sizes of both networks.

    Attributes:
        image_shape: channels, height, width.
        noise_size: numbers from which the generator makes one image.
        hidden_sizes: widths of the hidden layers, the same in both networks.
    """

    image_shape: tuple[int, int, int] = (1, 28, 28)
    noise_size: int = 32
    hidden_sizes: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        for name in ("image_shape", "hidden_sizes"):
            if not all(size >= 1 for size in getattr(self, name)):
                raise InputError(f"{name}: expected sizes of at least 1, got {getattr(self, name)}")
        if self.noise_size < 1:
            raise InputError(f"noise_size: expected at least 1, got {self.noise_size}")


class Generator(nn.Module):
    """Noise to images: `sigmoid(W3 relu(W2 relu(W1 z + b1) + b2) + b3)`.

    Args:
        config: the sizes.

    Example:
        >>> generator = Generator(MlpConfig(image_shape=(3, 8, 6)))
        >>> generator(generator.noise(5)).shape
        torch.Size([5, 3, 8, 6])
    """

    def __init__(self, config: MlpConfig) -> None:
        super().__init__()
        self.config = config
        sizes = (config.noise_size, *config.hidden_sizes, math.prod(config.image_shape))
        self.layers = _layers(sizes, nn.ReLU())

    def forward(self, noise: Tensor) -> Tensor:
        """Returns images, (batch, channels, height, width), with pixels between 0 and 1.

        Args:
            noise: (batch, noise_size).
        """
        pixels: Tensor = self.layers(noise)
        return pixels.sigmoid().view(-1, *self.config.image_shape)

    def noise(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws standard normal noise for `batch` images, on the device of the weights.

        The numbers are drawn on the CPU, so that a seed gives the same images on every device.
        """
        drawn = torch.randn(batch, self.config.noise_size, generator=generator)
        return drawn.to(next(self.parameters()).device)


class Discriminator(nn.Module):
    """Images to one logit each: positive means taken for real.

    The activation is a leaky ReLU, because a generator learns nothing through units that are off.

    Args:
        config: the sizes.
    """

    def __init__(self, config: MlpConfig) -> None:
        super().__init__()
        self.layers = _layers(
            (math.prod(config.image_shape), *config.hidden_sizes, 1), nn.LeakyReLU(_LEAK)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits, (batch,).

        Args:
            images: (batch, channels, height, width), pixels between 0 and 1.
        """
        centred = 2 * images.flatten(1) - 1
        logits: Tensor = self.layers(centred)
        return logits.squeeze(1)

    def predict_proba(self, images: Tensor) -> Tensor:
        """Returns the probability that each image is real, (batch,)."""
        return torch.sigmoid(self(images))


def _layers(sizes: tuple[int, ...], activation: nn.Module) -> nn.Sequential:
    layers: list[nn.Module] = []
    for input_size, output_size in itertools.pairwise(sizes):
        layers += [Linear(input_size, output_size), activation]
    return nn.Sequential(*layers[:-1])  # the head belongs to each network
