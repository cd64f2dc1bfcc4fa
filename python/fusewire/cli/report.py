"""What commands say when a run has ended, and where they put it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from fusewire.training.run_directory import RunResult


def free_path(folder: Path, name: str) -> Path:
    """The first of ``folder/name-1``, ``folder/name-2``, ... that does not exist."""
    numbered = (folder / f"{name}-{number}" for number in itertools.count(1))
    return next(path for path in numbered if not path.exists())


def is_first_process() -> bool:
    """Whether this process speaks for all that `torchrun` has started."""
    return os.environ.get("RANK", "0") == "0"


def print_results(results: Sequence[RunResult]) -> None:
    """Prints what was made and where, a path a line, so that each can be copied whole."""
    if not is_first_process():
        return
    console = Console(soft_wrap=True, highlight=False)
    console.rule("what was made")
    for result in results:
        measured = "".join(f", {name} {value:.3f}" for name, value in result.metrics.items())
        console.print(f"[bold]{escape(str(result.path))}[/bold]  step {result.step}{measured}")
        for label, path in result.made.items():
            console.print(f"  {label:<10} {escape(str(path))}")
    for result in results:
        if result.stopped_early:
            console.print(f"Stopped early; fusewire resume {result.path} continues.", markup=False)


def exit_code(result: RunResult) -> int:
    """130 for a run that a signal ended, as shells expect, else 0."""
    return 130 if result.stopped_early else 0
