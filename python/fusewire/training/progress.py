"""What a person sees while a run trains: a bar with live losses, or plain lines in a log file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

_SECONDS_BETWEEN_LINES = 5.0


class TrainingProgress:
    """Shows how far a run is, its losses and its speed.

    Args:
        label: what is trained, in a word or two.
        total: the step at which the run ends.
        done: the step at which it starts, more than 0 for a resumed run.
        unit: what `per_step` counts, such as "images" or "tokens".
        per_step: how many of them one step takes.
        console: where to write; standard output when not given.
        silent: write nothing, for all but one of many processes.
    """

    def __init__(
        self,
        label: str,
        total: int,
        done: int = 0,
        unit: str = "steps",
        per_step: int = 1,
        console: Console | None = None,
        silent: bool = False,
    ) -> None:
        self._label, self._total, self._first = label, total, done
        self._unit, self._per_step = unit, per_step
        self._console = console or Console()
        self._silent = silent
        self._start = self._last_line = time.monotonic()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=silent or not self._console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=total, completed=done, numbers="")

    def __enter__(self) -> TrainingProgress:
        self._start = self._last_line = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, step: int, losses: Mapping[str, float]) -> None:
        """Shows that `step` steps are done, with the losses by name."""
        now = time.monotonic()
        elapsed = max(now - self._start, 1e-9)
        speed = (step - self._first) * self._per_step / elapsed
        values = " ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
        numbers = f"{values} · {speed:,.0f} {self._unit}/s".lstrip()
        self._bar.update(self._task, completed=step, numbers=numbers)
        if self._silent or self._console.is_terminal:
            return
        # Long runs speak less often, so that a log of hours stays readable.
        pause = max(_SECONDS_BETWEEN_LINES, elapsed / 20)
        if now - self._last_line >= pause or step == self._total:
            self._last_line = now
            print(
                f"{self._label} {step}/{self._total} {numbers}", file=self._console.file, flush=True
            )
