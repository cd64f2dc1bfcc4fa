"""Which training has made a run directory, and which options are for its kind."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

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

_CALLED = {
    "gan": ("a GAN", "GANs"),
    "language": ("a language model", "language models"),
    "masked": ("an encoder", "encoders"),
    "classifier": ("a classifier", "classifiers"),
    "seq2seq": ("an encoder-decoder", "encoder-decoders"),
    "embeddings": ("word vectors", "word vectors"),
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


def refuse_others_options(command: Any, kind: str, options: Mapping[str, Collection[str]]) -> None:
    """Refuses options that say nothing to a run of some kind.

    Args:
        command: what was typed, a dataclass with the run directory as ``run``.
        kind: of the run.
        options: fields of the command, to the kinds of runs that they are for.

    Raises:
        InputError: one was given, with another value than its default.
    """
    if kind not in _TRAININGS:
        return  # there is more to say of it than this
    for field in dataclasses.fields(command):
        kinds = options.get(field.name, (kind,))
        if kind not in kinds and getattr(command, field.name) != field.default:
            option = "--" + field.name.replace("_", "-")
            of = " and ".join(_CALLED[each][1] for each in kinds)
            raise InputError(
                f"{option} is for {of}; {command.run} is {_CALLED[kind][0]}, leave it out"
            )
