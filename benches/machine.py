"""What decides the figures of a record: the machine, the versions, the commit."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import Any

import torch

from fusewire import _native


def machine() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "fusewire": _native.config(),
    }
