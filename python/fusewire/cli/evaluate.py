"""``fusewire evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fusewire.cli.arguments import Evaluate
from fusewire.cli.kinds import refuse_others_options
from fusewire.errors import InputError
from fusewire.training.adversarial import samples
from fusewire.training.adversarial.data import SampleFormat
from fusewire.training.evaluation.features import Features
from fusewire.training.evaluation.inception import inception_features
from fusewire.training.evaluation.report import evaluate, show_neighbours
from fusewire.training.run_directory import RunDirectory

_OPTIONS = {
    "data": ("language", "masked", "classifier", "seq2seq", "embeddings"),
    "analogies": ("embeddings",),
    "batch": ("language", "masked", "classifier"),
    **dict.fromkeys(("count", "features", "inception_weights", "seed"), (samples.KIND,)),
}


def run(command: Evaluate) -> int:
    """Measures a run and prints one number a line."""
    directory = RunDirectory.open(command.run)
    kind = directory.kind
    refuse_others_options(command, kind, _OPTIONS)
    if kind == samples.KIND:
        _gan(command, directory)
        return 0
    measures = {
        "language": _language,
        "masked": _masked,
        "classifier": _classifier,
        "seq2seq": _seq2seq,
        "embeddings": _embeddings,
    }
    if kind not in measures:
        raise InputError(f'{command.run} is a run of kind "{kind}", expected {", ".join(measures)}')
    if command.batch is not None and command.batch < 1:
        raise InputError(f"--batch must be at least 1, got {command.batch}")
    for name, value in measures[kind](command).items():
        shown = f"{value:.4f}" if isinstance(value, float) else value
        print(f"{name:<20} {shown}")
    return 0


def _gan(command: Evaluate, directory: RunDirectory) -> None:
    count = 5000 if command.count is None else command.count
    result = evaluate(
        command.run, count, command.seed, keep=command.run, features=_features(command)
    )
    for name, value in result.scores.items():
        print(f"{name:<20} {value:.4f}")
    for name, condition in result.conditions.items():
        print(f"  {name}: {condition}")
    form = samples.TrainedGenerator.open(command.run).form
    if form.medium == "images":
        output = samples.preview_path(directory, form).with_stem("neighbours")
        nearness = show_neighbours(command.run, output, seed=command.seed)
        print(f"  {output}: samples above the real ones nearest to them")
        print(f"  {nearness}")


def _features(command: Evaluate) -> Callable[[SampleFormat], Features] | None:
    if command.features == "inception":
        return partial(inception_features, weights=command.inception_weights)
    if command.inception_weights is not None:
        raise InputError("--inception-weights is for --features inception")
    return None


def _language(command: Evaluate) -> Mapping[str, Any]:
    from fusewire.training.sequence import language

    return language.evaluate(command.run, command.data, command.batch or 32)


def _masked(command: Evaluate) -> Mapping[str, Any]:
    from fusewire.training.sequence import masked

    return masked.evaluate(command.run, command.data, command.batch or 16)


def _classifier(command: Evaluate) -> Mapping[str, Any]:
    from fusewire.training.sequence import classifier

    return classifier.evaluate(command.run, command.data, command.batch or 64)


def _seq2seq(command: Evaluate) -> Mapping[str, Any]:
    from fusewire.training.sequence import seq2seq

    return seq2seq.evaluate(command.run, command.data)


def _embeddings(command: Evaluate) -> Mapping[str, Any]:
    from fusewire.recipes.words import held_against

    return held_against(command.run, command.data, command.analogies)
