"""When a run ends before its last step: on request, or because it has diverged."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType

from fusewire.errors import InputError
from fusewire.training.checkpoint import last_checkpoint

_EXPLODED = 1e10


class GracefulStop:
    """Turns Ctrl-C and SIGTERM into a request that the loop reads after each step.

    A second Ctrl-C interrupts at once. Signals reach the main thread only; elsewhere, this does
    nothing.

    Example:
        >>> with GracefulStop() as stop:
        ...     stop.requested
        False
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> GracefulStop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _request(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def require_sane(losses: Mapping[str, float], step: int, checkpoint_folder: Path) -> None:
    """Ends a run whose losses are no longer numbers, or beyond anything that learning gives.

    Args:
        losses: the losses of this step by name.
        step: the step.
        checkpoint_folder: where the run saves, to name the last good checkpoint.

    Raises:
        InputError: a loss is NaN, infinite or larger than 10^10.
    """
    for name, loss in losses.items():
        if not abs(loss) <= _EXPLODED:  # NaN fails too
            raise InputError(
                f"training diverged: {name} is {loss:g} at step {step}; "
                f"try a lower learning rate; {last_checkpoint(checkpoint_folder)}"
            )
