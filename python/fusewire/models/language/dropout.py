"""Locked dropout: what is dropped stays dropped for a whole sequence."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class LockedDropout(nn.Module):
    """Drops the same units at every step of a sequence (variational dropout, Gal et al. 2016).

    Args:
        probability: of dropping a unit.

    Example:
        >>> import torch
        >>> dropped = LockedDropout(0.5)(torch.ones(1, 7, 4))
        >>> bool((dropped == dropped[:, :1]).all())
        True
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    @property
    def active(self) -> bool:
        """Whether anything is dropped now."""
        return self.training and self.probability > 0.0

    def forward(self, hidden: Tensor) -> Tensor:
        """Drops units of (batch, seq_len, width), each for its whole row."""
        if not self.active:
            return hidden
        kept = hidden.new_ones(hidden.shape[0], 1, hidden.shape[2])
        return hidden * functional.dropout(kept, self.probability)
