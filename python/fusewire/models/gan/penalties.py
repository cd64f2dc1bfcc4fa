"""Penalties on the discriminator's gradient with respect to its input.

They keep the discriminator smooth, which is what makes the game converge. All differentiate a
gradient, but for the finite-difference form, which needs first derivatives only and so works where
double backward does not (fused attention, FSDP).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fusewire.config import require_declared
from fusewire.errors import InputError
from fusewire.models.gan.draws import Draws
from fusewire.models.gan.judging import EVERYWHERE, NOWHERE, Critic, Judged


@dataclass(frozen=True)
class Penalty:
    r"""A penalty on :math:`g = \partial D / \partial x` at some samples :math:`x`.

    - at ``"real"`` (R1, Mescheder et al. 2018) and ``"fake"`` (R2): :math:`E |g|^2 / 2`
    - ``"between"`` (WGAN-GP, Gulrajani et al. 2017): :math:`E (|g| - 1)^2`, at
      :math:`x = u x_{real} + (1 - u) x_{fake}` with a uniform :math:`u` for each pair

    Attributes:
        at: where the gradient is taken.
        weight: of the penalty in the discriminator's loss.
        every: take it in one of so many steps, and so many times as strongly (lazy regularisation,
            Karras et al. 2020).
        finite_difference: σ to estimate :math:`|g|^2` by
            :math:`E_\epsilon (D(x + σ\epsilon) - D(x))^2 / σ^2`, None to differentiate. Not for
            ``"between"``, whose length the square does not tell.
    """

    at: Literal["real", "fake", "between"]
    weight: float
    every: int = 1
    finite_difference: float | None = None

    def __post_init__(self) -> None:
        require_declared(self)
        if not 0 <= self.weight < float("inf"):
            raise InputError(f"weight of a penalty must be at least 0, got {self.weight}")
        if self.every < 1:
            raise InputError(f"every of a penalty must be at least 1, got {self.every}")
        if self.finite_difference is not None:
            if not 0 < self.finite_difference < float("inf"):
                raise InputError(
                    f"finite_difference must be more than 0, got {self.finite_difference}"
                )
            if self.at == "between":
                raise InputError('a penalty "between" cannot be taken by finite_difference')

    def is_due(self, step: int) -> bool:
        """Whether the penalty is taken in this step."""
        return self.weight > 0 and step % self.every == 0

    def differentiates(self, at: str) -> bool:
        """Whether samples of this kind need a gradient of their own."""
        return self.at == at and self.finite_difference is None

    def term(self, critic: Critic, seen: Mapping[str, Judged], draws: Draws) -> Tensor:
        """What is added to the discriminator's loss.

        Args:
            critic: the discriminator.
            seen: "real" and "fake" samples, with the slopes that this penalty differentiates.
            draws: random numbers of this step.

        Returns:
            A scalar, weighted.
        """
        if self.at == "between":
            real, fake = seen["real"].samples.detach(), seen["fake"].samples.detach()
            part = draws.uniform(*(1,) * (real.ndim - 1))
            slopes = critic(torch.lerp(fake, real, part), EVERYWHERE).slopes
            assert slopes is not None
            lengths = slopes.flatten(1).norm(dim=1)
            value = (lengths - 1).square().mean()
        elif self.finite_difference is None:
            slopes = seen[self.at].slopes
            assert slopes is not None
            value = _half_square(slopes.flatten()) / len(slopes)
        else:
            samples, logits = seen[self.at].samples.detach(), seen[self.at].logits
            shift = self.finite_difference * draws.normal(*samples.shape[1:])
            rise = (critic(samples + shift, NOWHERE).logits - logits) / self.finite_difference
            value = rise.square().mean() / 2
        term: Tensor = self.weight * self.every * value
        return term


def _half_square(vector: Tensor) -> Tensor:
    """`|v|^2 / 2`, whose gradient v is had in one pass over it instead of three.

    That gradient is a constant to autograd, so that no second one is right: a penalty is
    differentiated once.
    """
    kept = vector.detach()
    return torch.dot(vector, kept) - torch.dot(kept, kept) / 2
