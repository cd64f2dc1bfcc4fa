"""An alarm for generators that make the same sample again and again."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

# Trained generators of every kind keep more than half of the spread of their data.
_COLLAPSED = 0.2
_SETTLED = 500  # an untrained generator's samples are alike, too


class CollapseWarning(UserWarning):
    """Generated samples are much more alike than real ones."""


def diversity(real: Tensor, fake: Tensor) -> float:
    """Mean distance between generated samples, as a part of that between real ones.

    About 1 for a good generator, 0 for one that makes a single sample.

    Args:
        real: (samples, ...).
        fake: (samples, ...), of the same shape each.

    Example:
        >>> diversity(torch.eye(4), torch.ones(4, 4))
        0.0
    """
    spread = [torch.pdist(samples.float().flatten(1)).mean().item() for samples in (real, fake)]
    return spread[1] / max(spread[0], 1e-12)


def watch_diversity(real: Tensor, fake: Tensor, step: int) -> float:
    """Measures the diversity, and warns where a generator has collapsed.

    Args:
        real: (samples, ...), at least 2.
        fake: (samples, ...).
        step: of the run, for the message.
    """
    measured = diversity(real, fake)
    if step >= _SETTLED and measured < _COLLAPSED:
        warnings.warn(
            f"the generator may have collapsed: at step {step} its samples differ {measured:.2f} "
            'times as much as real ones do; try the loss "relativistic", or a lower learning rate',
            CollapseWarning,
            stacklevel=2,
        )
    return measured
