"""A discriminator of sound that cannot tell by where in time an upsampling artefact stands."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusewire.models.gan.draws import Draws


class PhaseShuffle(nn.Module):
    """Shifts each signal in time by a whole number of its own (Donahue et al. 2019).

    What enters at the border is mirrored.

    Args:
        most: largest shift in either direction.

    Example:
        >>> signals = torch.arange(12.0).view(2, 1, 6)
        >>> PhaseShuffle(2)(signals, Draws(0, 1, batch=2)).shape
        torch.Size([2, 1, 6])
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, input: Tensor, draws: Draws) -> Tensor:
        """Returns (batch, channels, length), as it came in.

        Args:
            input: signals of the rows that the draws are for.
            draws: random numbers of the step.
        """
        last = input.shape[-1] - 1
        most = min(self.most, last)  # a mirror is no longer than what it shows
        shifts = draws.integers(2 * most + 1) - most
        places = torch.arange(last + 1, device=input.device) - shifts[:, None]
        mirrored = last - (last - places.abs()).abs()
        return input.gather(2, mirrored[:, None].expand(input.shape))


class ShuffledLayers(nn.Sequential):
    """Layers one after another, between which signals are shifted where there are draws.

    Example:
        >>> layers = ShuffledLayers(nn.Conv1d(1, 2, 1), PhaseShuffle(1), nn.Flatten())
        >>> layers(torch.zeros(3, 1, 5)).shape
        torch.Size([3, 10])
    """

    def forward(self, input: Tensor, draws: Draws | None = None) -> Tensor:
        """Returns what the last layer gives.

        Args:
            input: (batch, channels, length).
            draws: random numbers of the step; None shifts nothing.
        """
        signals = input
        for layer in self:
            if not isinstance(layer, PhaseShuffle):
                signals = layer(signals)
            elif draws is not None:
                signals = layer(signals, draws)
        return signals
