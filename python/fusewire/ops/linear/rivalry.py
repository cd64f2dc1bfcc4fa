"""Where our product of matrices is faster than PyTorch's."""

from __future__ import annotations

from typing import Any

import torch

from fusewire import _native


def products_gain() -> bool:
    """Whether our product is known to be faster on this CPU.

    PyTorch's is MKL's, which keeps to AVX2 on AMD's CPUs.
    """
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    isa = str(_native.config()["isa"])
    return isa.startswith("avx512") and "AMD" in capabilities.get("cpu_name", "")
