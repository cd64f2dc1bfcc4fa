"""``fusewire evaluate``."""

from __future__ import annotations

from fusewire.cli.arguments import Evaluate
from fusewire.errors import InputError
from fusewire.training.adversarial.samples import KIND, TrainedGenerator, preview_path
from fusewire.training.evaluation.report import evaluate, show_neighbours
from fusewire.training.run_directory import RunDirectory


def run(command: Evaluate) -> int:
    """Prints every score with what it was computed from."""
    directory = RunDirectory.open(command.run)
    if directory.kind != KIND:
        raise InputError(f"{command.run} is no GAN; its validation loss stands in metrics.jsonl")
    result = evaluate(command.run, command.count, command.seed, keep=command.run)
    for name, value in result.scores.items():
        print(f"{name:<20} {value:.4f}")
    for name, condition in result.conditions.items():
        print(f"  {name}: {condition}")
    form = TrainedGenerator.open(command.run).form
    if form.medium == "images":
        output = preview_path(directory, form).with_stem("neighbours")
        ratio = show_neighbours(command.run, output, seed=command.seed)
        print(f"  {output}: samples above the real ones nearest to them,")
        print(f"  {ratio:.2f} times as far away as real ones are from each other")
    return 0
