"""Sound as a picture: how loud each pitch is at each time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WINDOW_SECONDS = 0.032
_BANDS = 40
_LOWEST = 60.0  # Hz
_FLOOR = 1e-5  # of the power, below which everything is silence


class LogMel(nn.Module):
    r"""The logarithm of the power in bands of equal width on the mel scale.

    :math:`(1 + \log_{10}(M |\mathrm{STFT}(x)|^2 + 10^{-5})) / 4`, -1 for silence, with triangles
    :math:`M` between the frequencies of equal distance in :math:`2595 \log_{10}(1 + f / 700)`.

    Args:
        rate: of the sound, numbers per second.
        length: of a clip.

    Example:
        >>> LogMel(rate=8000, length=4096)(torch.zeros(2, 1, 4096)).shape
        torch.Size([2, 1, 40, 33])
    """

    def __init__(self, rate: int, length: int) -> None:
        super().__init__()
        # The largest power of two that fits the clip and reaches about 32 ms.
        self.size = 1 << (max(16, min(int(_WINDOW_SECONDS * rate), length)).bit_length() - 1)
        self.register_buffer("window", torch.hann_window(self.size))
        self.register_buffer("triangles", _triangles(rate, self.size))
        self.window: Tensor
        self.triangles: Tensor

    def forward(self, waves: Tensor) -> Tensor:
        """(clips, 1, length) to (clips, 1, bands, frames), half a window apart."""
        spectrum = torch.stft(
            waves[:, 0],
            self.size,
            self.size // 2,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )
        power = self.triangles @ spectrum.abs().square()
        return ((power + _FLOOR).log10()[:, None] + 1) / 4


def _triangles(rate: int, size: int) -> Tensor:
    """Weights of the frequencies in each band, (bands, size / 2 + 1)."""
    ends = 2595 * torch.log10(1 + torch.tensor([_LOWEST, rate / 2]) / 700)
    corners = 700 * (10 ** (torch.linspace(ends[0], ends[1], _BANDS + 2) / 2595) - 1)
    frequencies = torch.linspace(0, rate / 2, size // 2 + 1)
    rise = (frequencies - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    fall = (corners[2:, None] - frequencies) / (corners[2:] - corners[1:-1])[:, None]
    # Where bands are narrower than the distance of two frequencies, each keeps its nearest.
    nearest = (frequencies - corners[1:-1, None]).abs().argmin(1)
    weights = torch.minimum(rise, fall).clamp(min=0)
    return weights.scatter_add(1, nearest[:, None], (weights.sum(1, keepdim=True) == 0).float())
