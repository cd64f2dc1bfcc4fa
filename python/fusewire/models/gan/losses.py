"""What both players of the adversarial game minimise, as functions of logits.

With D = sigmoid(logit), `-log D = softplus(-logit)` and `-log(1 - D) = softplus(logit)`; written
so, no probability is formed, and nothing under- or overflows however sure the discriminator is.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

GeneratorLoss = Literal["non_saturating", "minimax"]


def discriminator_loss(
    real_logits: Tensor, fake_logits: Tensor, real_target: float = 1.0
) -> Tensor:
    """Cross-entropy of telling real images (1) from generated ones (0).

    `mean(-t log D(real) - (1 - t) log(1 - D(real))) + mean(-log(1 - D(fake)))`

    Args:
        real_logits: the discriminator on real images, (batch,).
        fake_logits: the discriminator on generated images, detached from the generator, (batch,).
        real_target: t, below 1 for one-sided label smoothing.

    Returns:
        A scalar.

    Raises:
        ValueError: logits are not one number per image.

    Example:
        >>> undecided = torch.zeros(4)
        >>> round(discriminator_loss(undecided, undecided).item(), 4)  # 2 log 2
        1.3863
    """
    _require_one_logit_each(real_logits)
    _require_one_logit_each(fake_logits)
    # -t log D - (1 - t) log(1 - D) with both logarithms as softplus, one of them eliminated.
    on_real = softplus(-real_logits) + (1 - real_target) * real_logits
    return on_real.mean() + softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor, kind: GeneratorLoss = "non_saturating") -> Tensor:
    """How far the generator is from being taken for real.

    `non_saturating: mean(-log D(fake))`, whose gradient is strongest while the discriminator wins;
    `minimax: mean(log(1 - D(fake)))`, the negative of what the discriminator minimises, whose
    gradient vanishes then (Goodfellow et al. 2014, section 3).

    Args:
        fake_logits: the discriminator on generated images, (batch,).
        kind: which of the two.

    Returns:
        A scalar.

    Raises:
        ValueError: logits are not one number per image.
    """
    _require_one_logit_each(fake_logits)
    if kind == "minimax":
        return -softplus(fake_logits).mean()
    return softplus(-fake_logits).mean()


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Squared length of the discriminator's gradient at real images, `mean |dD/dx|^2 / 2`.

    Keeps the discriminator smooth where the data are, so that the game converges (R1 of Mescheder
    et al. 2018).

    Args:
        logits: the discriminator on `images`, (batch,).
        images: real images with `requires_grad`, (batch, ...).

    Returns:
        A scalar that can be differentiated with respect to the discriminator's weights.
    """
    _require_one_logit_each(logits)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.flatten(1).square().sum(1).mean() / 2


def _require_one_logit_each(logits: Tensor) -> None:
    if logits.ndim != 1:
        raise ValueError(f"expected one logit per image, (batch,), got {tuple(logits.shape)}")
