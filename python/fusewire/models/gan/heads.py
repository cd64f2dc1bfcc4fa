"""What turns a generator's last values into samples."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from fusewire.models.dense import activated

HeadKind: TypeAlias = Literal["sigmoid", "tanh", "identity", "softmax"]

# Normal numbers beyond this would give a uniform one that rounds to 0 or 1.
_FURTHEST = 5.0


class Continuous(nn.Module):
    """`sigmoid`, `tanh` or nothing, for numbers from 0 to 1, from -1 to 1, or of any size.

    Args:
        kind: which of them.
    """

    extra_noise = 0

    def __init__(self, kind: Literal["sigmoid", "tanh", "identity"]) -> None:
        super().__init__()
        self.kind: Literal["sigmoid", "tanh", "identity"] = kind

    def forward(self, values: Tensor, noise: Tensor) -> Tensor:  # noqa: ARG002
        """Returns samples of the shape of `values`; takes no noise of its own."""
        if self.kind == "identity":
            return values
        return activated(values, self.kind)


class SoftmaxSampling(nn.Module):
    r"""Draws one of several classes at every place: the sampling layer for discrete data.

    The class is :math:`\arg\max_k (v_k + g_k)` with Gumbel noise :math:`g`, which is a draw from
    :math:`\mathrm{softmax}(v)`. The sample is exactly one-hot; its gradient is that of
    :math:`\mathrm{softmax}((v + g) / τ)` (straight-through Gumbel-softmax, Jang et al. 2017).

    Args:
        shape: classes, places.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.extra_noise = shape[0] * shape[1]
        self.temperature = 1.0

    def forward(self, values: Tensor, noise: Tensor) -> Tensor:
        """Draws samples.

        Args:
            values: unnormalised log-probabilities, (batch, classes, places).
            noise: standard normal, (batch, classes * places).

        Returns:
            One-hot over the classes, (batch, classes, places).
        """
        uniform = torch.special.ndtr(noise.clamp(-_FURTHEST, _FURTHEST)).view(-1, *self.shape)
        gumbel = -(-uniform.log()).log()
        soft = ((values + gumbel) / self.temperature).softmax(1)
        hard = one_hot(soft.argmax(1), self.shape[0]).transpose(1, 2).to(soft.dtype)
        sample: Tensor = hard + (soft - soft.detach())
        return sample

    def log_probability(self, values: Tensor, samples: Tensor) -> Tensor:
        """Log-probability of drawn samples, (batch,), as REINFORCE needs it."""
        return (values.log_softmax(1) * samples.detach()).sum((1, 2))


Head: TypeAlias = Continuous | SoftmaxSampling


def make_head(kind: HeadKind, shape: tuple[int, ...]) -> Head:
    """The head of this kind, for samples of this shape."""
    return SoftmaxSampling(shape) if kind == "softmax" else Continuous(kind)
