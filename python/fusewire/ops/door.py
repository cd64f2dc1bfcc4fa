"""What every operator asks first: arrays or tensors? PyTorch is never imported to find out."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from operator import index
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

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


def check_array(operand: Any, name: str) -> NDArray[Any]:
    """The operand, if it is an array all of whose numbers count.

    Raises:
        TypeError: If it is something else.
    """
    if type(operand) is np.ndarray:
        return operand
    if isinstance(operand, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must be a plain array, but is a masked one; pass its data, and what is masked "
            "as a mask or as lengths"
        )
    if not isinstance(operand, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, but is {type(operand).__name__}")
    return operand


def check_seed(seed: Any) -> None:
    """Raises a ValueError where dropout cannot draw by a seed."""
    try:
        known = -(2**63) <= index(seed) < 2**63
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"seed must be a whole number of 64 bits with its sign, but is {seed!r}")


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether numbers are floating, those of `ml_dtypes`' bfloat16 too."""
    return np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16"


def attach(torch: ModuleType) -> None:
    """Lets the extension module find PyTorch's library in this process; later calls do nothing.

    Raises:
        RuntimeError: If PyTorch is older than 2.10.
    """
    folder = os.path.join(os.path.dirname(torch.__file__ or ""), "lib")
    _native.attach_torch(folder, torch.__version__)
