"""What packing documents saves: the same documents in the same batches, padded and packed.

    FUSEWIRE_DATA=... python -m benches.training.packing --out benches/record/packing.json

Film reviews (rt-polarity), a line each: a causal and a masked language model, and a classifier.
Both sides start from the same weights, take turns, and must have equal losses to rounding.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from benches.training.record import Record
from fusewire.data.batch import IGNORED
from fusewire.data.folder import data_folder
from fusewire.recipes import language as recipes
from fusewire.training.processes import Processes
from fusewire.training.sequence import classifier, language, masked
from fusewire.training.sequence.parts import Part

ROUND = 5
CONTEXT = 256


def compare(kind: str, text: Path, steps: int) -> dict[str, Any]:
    if kind == "classifier":
        return _beside(*_classifier(steps), steps)
    return _beside(*_language(kind, text), steps)


Loss = Callable[[nn.Module, int], Tensor]


def _language(kind: str, text: Path) -> tuple[nn.Module, Loss, Loss]:
    training: Any = language.TRAINING
    config: Any = recipes.default(text, "transformer", context=CONTEXT)
    if kind == "masked":
        training, config = masked.TRAINING, recipes.encoder(text, context=CONTEXT)
    config = dataclasses.replace(config, documents="lines")
    processes, material = Processes("cpu"), training.load(config, None)
    task = material.task(config, processes)
    model = training.build(config, material.vocabulary)
    rows = slice(0, config.batch)

    def packed(model: nn.Module, step: int) -> Tensor:
        return task.loss(model, task.batch(step, rows), None)[0]

    def padded(model: nn.Module, step: int) -> Tensor:
        inputs, targets, lengths = _rows(task.batch(step, rows))
        logits = model(inputs, lengths) if kind == "masked" else model(inputs)[0]
        return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    return model, packed, padded


def _rows(part: Part) -> tuple[Tensor, Tensor, Tensor]:
    assert part.boundaries is not None
    lengths = part.boundaries.diff()
    inputs, targets = (each[0].split(lengths.tolist()) for each in (part.inputs, part.targets))
    return pad_sequence(inputs, True), pad_sequence(targets, True, IGNORED), lengths


def _classifier(steps: int) -> tuple[nn.Module, Loss, Loss]:
    folder = data_folder("rt-polarity")
    config = dataclasses.replace(
        recipes.classifier(folder, "encoder", most_tokens=CONTEXT), dropout=0.0, steps=steps
    )
    processes, material = Processes("cpu"), classifier.TRAINING.load(config, None)
    model = classifier.TRAINING.build(config, material.vocabulary)

    def loss(packed: bool) -> Loss:
        task = material.task(dataclasses.replace(config, packed=packed), processes)

        def of(model: nn.Module, step: int) -> Tensor:
            return task.loss(model, task.batch(step, slice(0, config.batch)), None)[0]

        return of

    return model, loss(packed=True), loss(packed=False)


def _beside(model: nn.Module, packed: Loss, padded: Loss, steps: int) -> dict[str, Any]:
    sides = {"packed": (model, packed), "padded": (copy.deepcopy(model), padded)}
    optimizers = {
        name: torch.optim.AdamW(side.parameters(), 1e-3, fused=True)
        for name, (side, _) in sides.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, list[float]] = {name: [] for name in sides}
    for first in range(0, steps, ROUND):
        for (name, (side, loss)), optimizer in zip(sides.items(), optimizers.values(), strict=True):
            started = time.perf_counter()
            for step in range(first, first + ROUND):
                found = loss(side, step)
                optimizer.zero_grad()
                found.backward()
                optimizer.step()
                losses[name].append(found.item())
            seconds[name].append((time.perf_counter() - started) / ROUND)
    pairs = itertools.islice(zip(losses["packed"], losses["padded"], strict=True), 10)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "steps": steps,
        "seconds_per_step": medians,
        "ratio": medians["padded"] / medians["packed"],
        "largest_difference_of_ten_losses": max(abs(one - other) for one, other in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benches/record/packing.json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/packing"))
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    text = arguments.runs / "reviews.txt"
    folder = data_folder("rt-polarity")
    files = sorted(path for path in folder.iterdir() if path.name.startswith("rt-polarity"))
    text.write_text("\n".join(path.read_text("utf-8") for path in files), "utf-8")
    record = Record(arguments.out)
    for kind in ("causal", "masked", "classifier"):
        record.once(
            f"{kind}, {arguments.steps} steps",
            lambda kind=kind: compare(kind, text.absolute(), arguments.steps),
        )


if __name__ == "__main__":
    main()
