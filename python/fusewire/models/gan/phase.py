"""A discriminator of sound that cannot tell by where in time an upsampling artefact stands."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class PhaseShuffle(nn.Module):
    """Shifts a signal in time by a whole number drawn anew for each call (Donahue et al. 2019).

    What enters at the border is mirrored. A trained network, switched to evaluation, shifts
    nothing.

    Args:
        most: largest shift in either direction.

    Example:
        >>> signal = torch.arange(6.0).view(1, 1, 6)
        >>> PhaseShuffle(2)(signal).shape, torch.equal(PhaseShuffle(2).eval()(signal), signal)
        (torch.Size([1, 1, 6]), True)
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, input: Tensor) -> Tensor:
        """Returns (batch, channels, length), as it came in."""
        if not self.training:
            return input
        most = min(self.most, input.shape[-1] - 1)  # a mirror is no longer than what it shows
        shift = int(torch.randint(-most, most + 1, ()))
        mirrored = pad(input, (max(shift, 0), max(-shift, 0)), mode="reflect")
        start = max(-shift, 0)
        return mirrored[..., start : start + input.shape[-1]]
