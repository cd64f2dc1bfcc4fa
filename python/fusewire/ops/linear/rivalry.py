"""Where our product of matrices is faster than PyTorch's."""

from __future__ import annotations

import math
from typing import Any

import torch

from fusewire import _native

_MANY = 512  # rows: about level there and faster from 768 on, behind with fewer and gradients


def rows_that_gain() -> float:
    """The fewest rows from which our product is known to gain on this CPU; infinite if none.

    PyTorch's is MKL's, which on AMD's CPUs keeps to AVX2, and to smaller tiles than ours.
    """
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    isa = str(_native.config()["isa"])
    if "AMD" not in capabilities.get("cpu_name", "") or not isa.startswith("avx"):
        return math.inf
    return 0 if isa.startswith("avx512") else _MANY
