"""Nested tensors, into which PyTorch's encoders make padded batches, as padded ones."""

from __future__ import annotations

import torch


def pad(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A nested tensor as a padded one, and where its rows exist; None where `x` is not nested."""
    if not x.is_nested:
        return x, None
    lengths = torch.tensor([row.shape[0] for row in x.unbind()])
    padded = x.to_padded_tensor(0.0)
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]


def unpad(x: torch.Tensor, exists: torch.Tensor | None) -> torch.Tensor:
    """The padded tensor as it came to :func:`pad`."""
    return x if exists is None else torch._nested_tensor_from_mask(x, exists)
