"""The two players, put together from an architecture's bodies."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.utils.parametrizations import spectral_norm

from fusewire.config import require_like
from fusewire.models.dense import Dense
from fusewire.models.gan.draws import Draws
from fusewire.models.gan.heads import HeadKind, make_head
from fusewire.models.gan.leaky import LeakyLayers
from fusewire.models.gan.phase import ShuffledLayers

Conditioning: TypeAlias = Literal["concatenation", "projection"]
Shape: TypeAlias = tuple[int, ...]

# Heads whose samples are from 0 to 1; networks like their inputs to have a mean of about 0.
_UNCENTRED: tuple[HeadKind, ...] = ("sigmoid",)
_STRETCH = 2.0  # of numbers from 0 to 1, to numbers from -1 to 1


class Architecture(Protocol):
    """A kind of networks and their sizes: a configuration that makes both bodies.

    Attributes:
        noise_size: numbers from which the generator makes one sample.
        head: what the last layer's values go through.
        spectral: whether the discriminator's weights are divided by their largest singular value.
        flat: whether the bodies take and give vectors, whatever the shape of a sample.
    """

    @property
    def noise_size(self) -> int:
        """See above."""

    @property
    def head(self) -> HeadKind:
        """See above."""

    @property
    def spectral(self) -> bool:
        """See above."""

    @property
    def flat(self) -> bool:
        """See above."""

    def generator_body(self, inputs: int, shape: Shape) -> nn.Module:
        """Vectors of `inputs` numbers to values of a shape."""

    def discriminator_body(self, shape: Shape) -> tuple[nn.Module, int]:
        """Samples of a shape to features, and how many."""


class Trunk(nn.Module):
    """All that a generator learns: noise, and a class where there are classes, to values.

    Args:
        body: vectors to values.
        shape: of the values of one sample.
        classes: how many; 0 takes none.
    """

    def __init__(self, body: nn.Module, shape: Shape, classes: int) -> None:
        super().__init__()
        self.body, self.shape, self.classes = body, shape, classes

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns values, (batch, *shape).

        Args:
            noise: (batch, noise_size).
            labels: class numbers, (batch,).
        """
        if self.classes:
            noise = torch.cat((noise, _classes_of(noise, labels, self.classes)), 1)
        values: Tensor = self.body(noise)
        return values.view(-1, *self.shape)


class Generator(nn.Module):
    """Noise to samples: a trunk that learns, and a head that makes samples of its values.

    Args:
        architecture: kind and sizes of the network.
        shape: of one sample.
        classes: of samples, when they are to be chosen; else 0.

    Example:
        >>> from fusewire.models.gan import MlpConfig
        >>> generator = Generator(MlpConfig(), shape=(3, 8, 6))
        >>> generator(generator.noise(5)).shape
        torch.Size([5, 3, 8, 6])
    """

    def __init__(self, architecture: Architecture, shape: Shape, classes: int = 0) -> None:
        super().__init__()
        self.head = make_head(architecture.head, shape)
        self.latent_size = architecture.noise_size
        self.noise_size = self.latent_size + self.head.extra_noise
        self.classes = classes
        body = architecture.generator_body(self.latent_size + classes, shape)
        self.trunk = Trunk(body, shape, classes)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns samples, (batch, *shape).

        Args:
            noise: standard normal, (batch, noise_size).
            labels: class numbers, (batch,), for a generator of classes.
        """
        latent, rest = self.split(noise)
        samples: Tensor = self.head(self.trunk(latent, labels), rest)
        return samples

    def split(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What of the noise goes into the trunk, and what into the head."""
        return noise[:, : self.latent_size], noise[:, self.latent_size :]

    def noise(self, batch: int, source: torch.Generator | None = None) -> Tensor:
        """Draws noise for `batch` samples, on the device of the weights.

        The numbers are drawn on the CPU, so that a seed gives the same samples on every device.
        """
        drawn = torch.randn(batch, self.noise_size, generator=source)
        return drawn.to(next(self.parameters()).device)


class Discriminator(nn.Module):
    """Samples to one logit each: positive means taken for real.

    Args:
        architecture: kind and sizes of the network.
        shape: of one sample.
        classes: of samples, when they are told; else 0.
        conditioning: how the class is told: as further channels, or as the direction in which
            features count (Miyato and Koyama 2018).
    """

    def __init__(
        self,
        architecture: Architecture,
        shape: Shape,
        classes: int = 0,
        conditioning: Conditioning = "concatenation",
    ) -> None:
        super().__init__()
        require_like(Conditioning, conditioning=conditioning)
        self.classes = classes
        self.conditioning = conditioning if classes else None
        flat = (torch.Size(shape).numel(),)
        self.shape: Shape = flat if architecture.flat else shape
        channels = self.shape[0] + (classes if self.conditioning == "concatenation" else 0)
        self.body, features = architecture.discriminator_body((channels, *self.shape[1:]))
        self.score = Dense(features, 1)
        if self.conditioning == "projection":
            self.directions = nn.Embedding(classes, features)
            nn.init.normal_(self.directions.weight, std=features**-0.5)
        if architecture.spectral:
            for layer in [layer for layer in self.modules() if hasattr(layer, "weight")]:
                spectral_norm(layer)
        self._centres = architecture.head in _UNCENTRED

    def forward(
        self, samples: Tensor, labels: Tensor | None = None, draws: Draws | None = None
    ) -> Tensor:
        """Returns logits, (batch,).

        Args:
            samples: (batch, *shape), as the generator's head gives them.
            labels: class numbers, (batch,), where the class is told.
            draws: random numbers of a step, for networks that change what they see while they
                learn; None changes nothing.
        """
        drawn = (draws,) if isinstance(self.body, ShuffledLayers) else ()
        features = self.body(self._inputs(samples, labels), *drawn)
        logits: Tensor = self.score(features).squeeze(1)
        if self.conditioning == "projection":
            logits = logits + (self._directions(labels) * features).sum(1)
        return logits

    def with_slopes(
        self, samples: Tensor, labels: Tensor | None, sloping: slice
    ) -> tuple[Tensor, Tensor]:
        """Logits, and the gradients of some of them at their samples, where there is a closed form.

        Args:
            samples: (batch, *shape).
            labels: class numbers, (batch,), where the class is told.
            sloping: the samples at which gradients are wanted.

        Returns:
            (batch,), and (sloping samples, *shape).

        Raises:
            TypeError: the body is none of `LeakyLayers`.
        """
        if not isinstance(self.body, LeakyLayers):
            raise TypeError(f"gradients of {type(self.body).__name__} have no closed form")
        directions = self.score.weight
        if self.conditioning == "projection":
            directions = directions + self._directions(labels)
        numbers, slopes = self.body.project(
            self._inputs(samples, labels), directions, sloping, _STRETCH if self._centres else 1.0
        )
        at_samples = slopes[:, : self.shape[0]]  # and not at what tells the class
        return numbers + self.score.bias, at_samples.reshape(-1, *samples.shape[1:])

    def _inputs(self, samples: Tensor, labels: Tensor | None) -> Tensor:
        inputs = samples.reshape(-1, *self.shape)
        if self._centres:
            # 2 x - 1 in one pass over the samples.
            inputs = torch.rsub(inputs, -1.0, alpha=-_STRETCH)
        if self.conditioning == "concatenation":
            told = _classes_of(inputs, labels, self.classes)
            planes = told.view(*told.shape, *(1,) * (inputs.ndim - 2))
            inputs = torch.cat((inputs, planes.expand(-1, -1, *inputs.shape[2:])), 1)
        return inputs

    def _directions(self, labels: Tensor | None) -> Tensor:
        told: Tensor = self.directions(_require_labels(labels, self.classes))
        return told

    def predict_proba(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the probability that each sample is real, (batch,)."""
        return torch.sigmoid(self(samples, labels))


def _classes_of(like: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    return one_hot(_require_labels(labels, classes), classes).to(like.dtype)


def _require_labels(labels: Tensor | None, classes: int) -> Tensor:
    if labels is None:
        raise ValueError(f"expected labels: this network was made for {classes} classes")
    return labels
