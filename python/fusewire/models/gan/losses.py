"""What both players of the adversarial game minimise, as functions of logits.

With D = sigmoid(logit), `-log D = softplus(-logit)` and `-log(1 - D) = softplus(logit)`; written
so, no probability is formed, and nothing under- or overflows however sure the discriminator is.
Every loss takes one logit per sample, (batch,), and gives a scalar.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from torch import Tensor
from torch.nn.functional import relu, softplus

from fusewire.config import require_like

LossName: TypeAlias = Literal[
    "minimax", "non_saturating", "least_squares", "hinge", "wasserstein", "relativistic"
]

SMOOTHED: tuple[LossName, ...] = ("minimax", "non_saturating")
"""Losses that are a cross-entropy, whose target for real samples may be below 1."""


class Loss(Protocol):
    """One game: two functions of the discriminator's logits.

    Attributes:
        pairs: the generator's loss compares with real samples, whose logits it needs as well.
    """

    pairs: bool

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the discriminator minimises.

        Args:
            real: logits of real samples, (batch,).
            fake: logits of generated samples, detached from the generator, (batch,).

        Raises:
            ValueError: logits are not one number per sample.
        """

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """What the generator minimises.

        Args:
            fake: logits of generated samples, (batch,).
            real: logits of real samples, (batch,), for a loss that compares.

        Raises:
            ValueError: logits are not one number per sample.
        """


class NonSaturating:
    """`-log D(real) - log(1 - D(fake))` against `-log D(fake)` (Goodfellow et al. 2014).

    The generator's gradient is strongest while the discriminator wins.

    Args:
        real_target: t in `-t log D - (1 - t) log(1 - D)`; below 1 is one-sided label smoothing.

    Example:
        >>> import torch
        >>> undecided = torch.zeros(4)
        >>> round(NonSaturating().discriminator(undecided, undecided).item(), 4)  # 2 log 2
        1.3863
    """

    pairs = False

    def __init__(self, real_target: float = 1.0) -> None:
        self.real_target = real_target

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Cross-entropy of telling real from generated."""
        _require_one_logit_each(real, fake)
        on_real = softplus(-real)
        if self.real_target != 1:
            on_real = on_real + (1 - self.real_target) * real
        return (on_real.sum() + softplus(fake).sum()) / len(real)

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Cross-entropy of being taken for real."""
        _require_one_logit_each(fake)
        return softplus(-fake).mean()


class Minimax(NonSaturating):
    """As `NonSaturating`, but the generator minimises `log(1 - D(fake))`.

    The original zero-sum game; its gradient vanishes while the discriminator wins.
    """

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The negative of what the discriminator minimises."""
        _require_one_logit_each(fake)
        return -softplus(fake).mean()


class LeastSquares:
    """`((D(real) - 1)^2 + D(fake)^2) / 2` against `(D(fake) - 1)^2 / 2` (Mao et al. 2017)."""

    pairs = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Squared distance to 1 for real samples and to 0 for generated ones."""
        _require_one_logit_each(real, fake)
        return ((real - 1).square().mean() + fake.square().mean()) / 2

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Squared distance of generated samples to 1."""
        _require_one_logit_each(fake)
        return (fake - 1).square().mean() / 2


class Hinge:
    """`max(0, 1 - D(real)) + max(0, 1 + D(fake))` against `-D(fake)` (Lim and Ye 2017)."""

    pairs = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Both sides pushed beyond a margin, and no further."""
        _require_one_logit_each(real, fake)
        return relu(1 - real).mean() + relu(1 + fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The negative mean logit."""
        _require_one_logit_each(fake)
        return -fake.mean()


class Wasserstein:
    """`D(fake) - D(real)` against `-D(fake)` (Arjovsky et al. 2017).

    Right only for a discriminator that is Lipschitz: with clipped weights, a penalty on the
    gradient between real and generated samples, or spectral norm.
    """

    pairs = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The negative of the estimated distance."""
        _require_one_logit_each(real, fake)
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The negative mean logit."""
        _require_one_logit_each(fake)
        return -fake.mean()


class Relativistic:
    """`-log sigmoid(D(real) - D(fake))` against the same with signs changed, sample by sample.

    Every generated sample is compared with a real one, so that none can be forgotten; with both
    R1 and R2 it converges where the others need tricks (Huang et al. 2024, "R3GAN").
    """

    pairs = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Real samples should look more real than those beside them."""
        _require_one_logit_each(real, fake)
        return softplus(fake - real).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Generated samples should look more real than those beside them."""
        if real is None:
            raise ValueError("expected logits of real samples too: this loss compares with them")
        _require_one_logit_each(fake, real)
        return softplus(real - fake).mean()


def make_loss(name: LossName, real_target: float = 1.0) -> Loss:
    """The loss of this name.

    Args:
        name: one of `LossName`.
        real_target: for the two losses that are a cross-entropy.

    Raises:
        InputError: there is no such loss.
    """
    require_like(LossName, loss=name)
    losses: dict[str, Loss] = {
        "minimax": Minimax(real_target),
        "non_saturating": NonSaturating(real_target),
        "least_squares": LeastSquares(),
        "hinge": Hinge(),
        "wasserstein": Wasserstein(),
        "relativistic": Relativistic(),
    }
    return losses[name]


def _require_one_logit_each(*logits: Tensor) -> None:
    # Shapes such as (batch, 1) against (batch,) would broadcast to batch x batch in silence.
    for each in logits:
        if each.ndim != 1:
            raise ValueError(f"expected one logit per sample, (batch,), got {tuple(each.shape)}")
        if each.shape != logits[0].shape:
            raise ValueError(
                f"expected as many logits of each kind, got {len(logits[0])} and {len(each)}"
            )
