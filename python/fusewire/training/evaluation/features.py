"""What samples are compared in: by default features of a small classifier of the same data.

Inception's features (`inception.py`) are made for photographs of 299 x 299 pixels; for grey
pictures of 28 x 28, or for sound, those of a classifier of the same data say more.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fusewire.errors import InputError
from fusewire.models.gan import ConvolutionalConfig, MlpConfig
from fusewire.training.checkpoint import checkpoint_steps, load_checkpoint, save_checkpoint
from fusewire.training.evaluation.spectrograms import LogMel
from fusewire.training.order import ShuffledOrder

_FEATURES = 64
_WIDTH = 16
_BATCH = 128
_LEARNING_RATE = 2e-3
_HELD_OUT = 0.1
_EPOCHS = 25
_LEAST_STEPS, _MOST_STEPS = 300, 1500


class Features(Protocol):
    """What samples are compared in; as a string, what must be told beside the scores."""

    @property
    def resize(self) -> str:
        """What is done to the size of samples before they are seen; empty where nothing is."""

    def features(self, samples: Tensor) -> Tensor:
        """(samples, *shape), in the range of the generator, to (samples, size)."""


class Numbers:
    """The numbers of a sample themselves, where nothing better is known.

    Example:
        >>> Numbers().features(torch.zeros(5, 1, 2, 3)).shape
        torch.Size([5, 6])
    """

    resize = ""

    def features(self, samples: Tensor) -> Tensor:
        """(samples, *shape) to (samples, product of the shape)."""
        return samples.flatten(1)

    def __str__(self) -> str:
        return "the numbers of a sample"


class FeatureNet(nn.Module):
    """Convolutions, of vectors dense layers, to features, and a last layer to classes.

    Sound is seen as a spectrogram.

    Args:
        shape: of one sample, channels first.
        classes: how many.
        rate: of sound, numbers per second; 0 for what is none.

    Example:
        >>> net = FeatureNet((1, 28, 28), classes=10)
        >>> net.features(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 64])
    """

    def __init__(self, shape: tuple[int, ...], classes: int, rate: int = 0) -> None:
        super().__init__()
        self.view: nn.Module = nn.Identity()
        if rate:
            self.view = LogMel(rate, shape[-1])
            shape = tuple(self.view(torch.zeros(1, *shape)).shape[1:])
        kind = MlpConfig() if len(shape) == 1 else ConvolutionalConfig(width=_WIDTH)
        body, size = kind.discriminator_body(shape)
        self.body = nn.Sequential(body, nn.Linear(size, _FEATURES), nn.ReLU())
        self.last = nn.Linear(_FEATURES, classes)

    def features(self, samples: Tensor) -> Tensor:
        """(samples, *shape) to (samples, 64)."""
        parts: list[Tensor] = [self.body(self.view(part)) for part in torch.split(samples, 512)]
        return torch.cat(parts)

    def forward(self, samples: Tensor) -> Tensor:
        """(samples, *shape) to unnormalised log-probabilities, (samples, classes)."""
        logits: Tensor = self.last(self.body(self.view(samples)))
        return logits


@dataclass(frozen=True)
class TrainedFeatures:
    """A feature net with what must be told beside its scores.

    Attributes:
        net: switched to evaluation.
        accuracy: on samples that it has not seen.
        seen: samples that it was trained on.
    """

    net: FeatureNet
    accuracy: float
    seen: int
    resize = ""

    def features(self, samples: Tensor) -> Tensor:
        """(samples, *shape) to (samples, 64)."""
        return self.net.features(samples)

    def classes(self, samples: Tensor) -> Tensor:
        """The likeliest class of each sample, (samples,)."""
        logits: Tensor = self.net.last(self.features(samples))
        return logits.argmax(1)

    def __str__(self) -> str:
        return (
            f"own classifier, {_FEATURES} features, trained on {self.seen} samples, "
            f"{100 * self.accuracy:.1f} % right on others"
        )


def train_features(
    samples: Tensor,
    labels: Tensor,
    steps: int | None = None,
    seed: int = 0,
    keep: Path | None = None,
    rate: int = 0,
) -> TrainedFeatures:
    """Trains the classifier, or reads it where it was trained before.

    Args:
        samples: (samples, *shape), floating point.
        labels: class numbers, (samples,).
        steps: of Adam; None takes 25 times through the data, from 300 to 1500.
        seed: of weights and order; the same seed gives the same net.
        keep: folder for the trained net, found again by data, steps and seed; None trains anew.
        rate: of sound, numbers per second; 0 for what is none.

    Raises:
        InputError: there are too few samples or classes.
    """
    classes = int(labels.max()) + 1
    epochs = math.ceil(_EPOCHS * len(samples) / _BATCH)
    steps = steps or max(_LEAST_STEPS, min(_MOST_STEPS, epochs))
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    held = order[: int(len(samples) * _HELD_OUT)]
    shown = order[len(held) :]
    if classes < 2 or not len(held):
        raise InputError(
            f"a classifier needs two classes and ten samples, got {classes} and {len(samples)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = FeatureNet(tuple(samples.shape[1:]), classes, rate)
    folder = None if keep is None else keep / _name(samples, labels, steps, seed, rate)
    if folder is not None and checkpoint_steps(folder):
        load_checkpoint(folder, {"features": net})
    else:
        _fit(net, samples[shown], labels[shown], steps, seed)
        if folder is not None:
            save_checkpoint(folder, steps, {"features": net}, {}, {})
    net.eval().requires_grad_(False)
    right = net.last(net.features(samples[held])).argmax(1) == labels[held]
    return TrainedFeatures(net, right.double().mean().item(), len(shown))


def _fit(net: FeatureNet, samples: Tensor, labels: Tensor, steps: int, seed: int) -> None:
    optimizer = torch.optim.Adam(net.parameters(), _LEARNING_RATE, fused=True)
    order = ShuffledOrder(len(samples), min(_BATCH, len(samples)), seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * (1 - step / steps)
        chosen = torch.from_numpy(order.batch(step))
        loss = cross_entropy(net(samples[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _name(samples: Tensor, labels: Tensor, steps: int, seed: int, rate: int) -> str:
    digest = hashlib.sha256(repr((samples.shape, steps, seed, rate)).encode())
    digest.update(samples.contiguous().numpy().data)
    digest.update(labels.contiguous().numpy().data)
    return f"features-{digest.hexdigest()[:16]}"
