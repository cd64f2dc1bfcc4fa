"""A discriminator as its own move asks it: for logits, and for their gradients at the samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from fusewire.models.gan.augmentation import AugmentationKind, augment
from fusewire.models.gan.draws import Draws
from fusewire.models.gan.leaky import LeakyLayers
from fusewire.models.gan.networks import Discriminator

NOWHERE = slice(0)
"""No rows of a batch."""

EVERYWHERE = slice(None)
"""All rows of a batch."""


@dataclass(frozen=True)
class Judged:
    """Samples and what the discriminator said of them.

    Attributes:
        samples: (batch, ...).
        logits: (batch,).
        slopes: the gradient of each logit at its sample, (batch, ...), which can be differentiated;
            None where nobody asked for it.
    """

    samples: Tensor
    logits: Tensor
    slopes: Tensor | None = None


Critic: TypeAlias = Callable[[Tensor, slice], Judged]
"""What judges samples, and gives slopes at all of them, `EVERYWHERE`, or `NOWHERE`."""


class Judge(nn.Module):
    """A discriminator on samples that are changed at random before.

    Args:
        discriminator: the network.
        augmentations: the changes.
    """

    def __init__(
        self, discriminator: Discriminator, augmentations: Sequence[AugmentationKind] = ()
    ) -> None:
        super().__init__()
        self.discriminator, self.augmentations = discriminator, augmentations
        self.has_closed_form = isinstance(discriminator.body, LeakyLayers) and not augmentations

    def forward(
        self, samples: Tensor, labels: Tensor | None, draws: Draws, sloping: slice
    ) -> tuple[Tensor, Tensor]:
        """Judges samples.

        Args:
            samples: (batch, ...).
            labels: class numbers, (batch,), where the class is told.
            draws: random numbers of this step.
            sloping: the samples at which slopes are wanted.

        Returns:
            Logits, (batch,), and the gradients of some of them at their samples, (sloping samples,
            ...), which can be differentiated.
        """
        if self.has_closed_form:
            return self.discriminator.with_slopes(samples, labels, sloping)
        wanted = len(samples[sloping]) > 0
        if wanted:
            samples.requires_grad_()
        logits = self.discriminator(augment(samples, self.augmentations, draws), labels, draws)
        slopes = slopes_of(logits, samples) if wanted else samples
        return logits, slopes[sloping]


def slopes_of(logits: Tensor, samples: Tensor) -> Tensor:
    """The gradient of each logit at its sample, which can be differentiated."""
    (slopes,) = torch.autograd.grad(logits, samples, torch.ones_like(logits), create_graph=True)
    return slopes
