"""What a record must carry, and the table at the end of a run."""

from typing import Any

import pytest
import torch

from benches.machine import processor
from fusewire import _native


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Adds what decides the figures: instruction set, versions, PyTorch's libraries."""
    machine_info["fusewire"] = _native.config()
    machine_info["torch"] = torch.__version__
    machine_info["torch_config"] = torch.__config__.show()
    machine_info["processor"] = processor()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints ours beside the rival's, with the peak beside both."""
    session = getattr(config, "_benchmarksession", None)
    rows = [bench for bench in getattr(session, "benchmarks", []) if "ratio" in bench.extra_info]
    if not rows:
        return
    terminalreporter.section("ours beside PyTorch's")
    terminalreporter.line(
        f"{'operator and shape':<58}{'ms':>10}{'rival ms':>10}{'ratio':>7}{'of peak':>9}"
    )
    for bench in rows:
        info = bench.extra_info
        terminalreporter.line(
            f"{bench.params['case']!s:<50}{info['threads']:>2} thr"
            f"  {1e3 * bench.stats.median:>10.3f}{1e3 * info['rival_seconds']:>10.3f}"
            f"{info['ratio']:>7.2f}{info['of_peak']:>9.2f}"
            + "".join(
                f"  {name.removesuffix('_seconds')} {1e3 * seconds:.3f} ms"
                for name, seconds in info.items()
                if name.endswith("_seconds") and name != "rival_seconds"
            )
        )
