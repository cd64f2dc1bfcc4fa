"""Which training has made a run directory."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

from fusewire.errors import InputError
from fusewire.training.run_directory import RunDirectory, RunResult

_TRAININGS = {
    "gan": "fusewire.training.adversarial.loop",
    "language": "fusewire.training.sequence.language",
    "masked": "fusewire.training.sequence.masked",
    "classifier": "fusewire.training.sequence.classifier",
    "seq2seq": "fusewire.training.sequence.seq2seq",
    "embeddings": "fusewire.training.embeddings",
}


class Training(Protocol):
    """A module that trains one kind of model."""

    def resume(self, path: Path, steps: int | None = None) -> RunResult:
        """Continues a run from its newest checkpoint."""


def trained_by(path: Path) -> Training:
    """The training that made a run directory.

    Raises:
        InputError: the path is no run directory, or one of a kind that is not known.
    """
    kind = RunDirectory.open(path).kind
    if kind not in _TRAININGS:
        raise InputError(f'{path} is a run of kind "{kind}", expected {", ".join(_TRAININGS)}')
    module: Training = importlib.import_module(_TRAININGS[kind])
    return module
