"""The log of a run for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from fusewire.errors import InputError


class TensorBoardLog:
    """Writes measurements to `RUN/tensorboard`, for `tensorboard --logdir RUN`.

    Args:
        run_path: the run directory.
        resume_step: TensorBoard hides what was written after this step before.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, run_path: Path, resume_step: int = 0) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ModuleNotFoundError:
            raise InputError(
                "tensorboard is not installed: pip install 'fusewire[tensorboard]' brings it"
            ) from None
        self._writer = SummaryWriter(
            str(run_path / "tensorboard"), purge_step=resume_step + 1 if resume_step else None
        )

    def write(self, step: int, **values: float) -> None:
        """Writes the values of one step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
