"""Where a run computes."""

from __future__ import annotations

import torch

from fusewire.errors import InputError


def require_device(name: str) -> None:
    """Refuses a device that this machine cannot use.

    Args:
        name: as PyTorch calls it, such as "cpu" or "cuda".

    Raises:
        InputError: PyTorch does not know the device or cannot use it here.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as failure:
        reason = str(failure).splitlines()[0].rstrip(".")
        raise InputError(f'device "{name}" cannot be used: {reason}; "cpu" always can') from failure
