"""What decides the figures of a record: the machine, the versions, the commit."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fusewire import _native


def machine() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "fusewire": _native.config(),
    }


def processor(told: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, with family and model where Linux tells them: names may hide both."""
    try:
        pairs = [line.partition(":") for line in told.read_text().splitlines()]
    except OSError:
        return platform.processor() or platform.machine()
    known = {name.strip(): value.strip() for name, _, value in pairs}
    name = known.get("model name", platform.machine())
    if "cpu family" not in known:  # what is no x86 has none
        return name
    return f"{name} (family {known['cpu family']}, model {known.get('model')})"
