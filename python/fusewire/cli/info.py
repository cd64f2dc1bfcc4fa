"""``fusewire info``."""

from __future__ import annotations

import contextlib
import importlib
import platform

import fusewire
from fusewire.cli.arguments import Info


def run(_command: Info) -> int:
    """Prints the machine and what kernels run on."""
    print(f"machine  {platform.machine()}, {platform.system()} {platform.release()}")
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("torch")  # its threads and version count when it is there
    fusewire.show_config()
    return 0
