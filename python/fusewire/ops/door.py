"""What every operator asks first: arrays or tensors? PyTorch is never imported to find out."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, TypeGuard

from fusewire import _native

if TYPE_CHECKING:
    import torch

_followed: ModuleType | None = None


def is_tensor(operand: object) -> TypeGuard[torch.Tensor]:
    """Whether `operand` is a PyTorch tensor.

    Where PyTorch is imported, kernels on arrays run on its threads from now on: ours would only
    wait for the cores on which they spin between its operators.
    """
    global _followed
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    # The compiler cannot look into the extension module; the family's import attaches as well.
    if torch is not _followed and not torch.compiler.is_compiling():
        _followed = torch
        # One that is too old is told of where tensors come, not here.
        with suppress(RuntimeError):
            attach(torch)
    return isinstance(operand, torch.Tensor)


def attach(torch: ModuleType) -> None:
    """Lets the extension module find PyTorch's library in this process; later calls do nothing.

    Raises:
        RuntimeError: If PyTorch is older than 2.10.
    """
    folder = os.path.join(os.path.dirname(torch.__file__ or ""), "lib")
    _native.attach_torch(folder, torch.__version__)
