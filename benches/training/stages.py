"""Training in stages, with scores after each, kept in a record as they come.

A minute is as many steps as the two cores make in one: speed is measured on the CPU, alone, and
written down; from then on steps are counted, so that the same stages can be trained on a machine
that has other work, or on a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benches.machine import processor
from benches.training.record import strict_json
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.loop import resume, train
from fusewire.training.checkpoint import checkpoint_steps
from fusewire.training.metrics import read_metrics

RECORDS = Path(__file__).parents[1] / "record"
_INTERVALS = 6  # whose median is the speed


def arguments(description: str | None, minutes: Sequence[float]) -> argparse.ArgumentParser:
    """The options that all of these commands have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=Path, default=Path("runs/shown"), help="where runs live")
    parser.add_argument(
        "--minutes", type=float, nargs="*", default=list(minutes),
        help="of training on the CPU, at each stage; none to measure speeds only",
    )  # fmt: skip
    parser.add_argument("--count", type=int, default=5000, help="samples to score")
    parser.add_argument("--only", nargs="*", help="names of runs; all by default")
    parser.add_argument("--record", type=Path, help="file to write; by default in benches/record")
    parser.add_argument("--device", default="cpu", help="where the steps are made")
    return parser


class Record:
    """A JSON file of rows and speeds, written whenever one is added."""

    def __init__(self, name: str, path: Path | None) -> None:
        machine = platform.node() or "machine"
        day = dt.datetime.now(dt.UTC).date()
        self.path = path or RECORDS / f"{day}-{machine}-{name}.json"
        self.content: dict[str, Any] = {
            "name": name,
            "date": str(day),
            "machine": f"{processor()}, {os.cpu_count()} cores",
            "torch": torch.__version__,
            "commit": _commit(),
            "speeds": {},
            "rows": [],
        }
        if self.path.exists():
            self.content |= json.loads(self.path.read_text())

    def has(self, **key: object) -> bool:
        """Whether there is a row with these values."""
        return any(all(row.get(k) == v for k, v in key.items()) for row in self.content["rows"])

    def add(self, row: Mapping[str, object]) -> None:
        """Adds a row, prints it, and writes the file."""
        self.content["rows"].append(dict(row))
        self._write()
        numbers = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
        print(", ".join(numbers), flush=True)

    def seconds_per_step(self, run: str, config: GanConfig) -> float:
        """Seconds of a step on the CPU, measured where this has not been done."""
        speeds = self.content["speeds"]
        if run not in speeds:
            threads = config.threads or (1 if config.model.flat else torch.get_num_threads())
            speeds[run] = {"seconds_per_step": measure(config), "threads": threads}
            self._write()
            print(run, speeds[run], flush=True)
        return float(speeds[run]["seconds_per_step"])

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(strict_json(self.content) + "\n")


def measure(config: GanConfig) -> float:
    """Seconds of a step of a run on the CPU, without its start and its checkpoints."""
    every = 50 if config.model.flat else 1
    steps = every * (_INTERVALS + 2)
    config = dataclasses.replace(config, steps=steps, log_every=every, checkpoint_every=steps)
    with tempfile.TemporaryDirectory() as folder:
        result = train(config, Path(folder) / "run")
        times = [row["time"] for row in read_metrics(result.path / "metrics.jsonl")]
    return median((b - a) / every for a, b in itertools.pairwise(times[1:]))


def train_to(config: GanConfig, path: Path, steps: int) -> None:
    """Trains, or goes on, until a run has made so many steps."""
    done = (checkpoint_steps(path / "checkpoint") or [0])[-1]
    if done >= steps:
        return
    result = resume(path, steps) if done else train(dataclasses.replace(config, steps=steps), path)
    if result.stopped_early:
        sys.exit(130)


def run_stages(
    name: str,
    configs: Mapping[str, GanConfig],
    options: argparse.Namespace,
    score: Callable[[Path], Mapping[str, object]],
) -> Record:
    """Trains every run through every stage and records its scores."""
    record = Record(name, options.record)
    for run, config in configs.items():
        if options.only and run not in options.only:
            continue
        seconds = record.seconds_per_step(run, config)
        for minutes in options.minutes:
            if record.has(run=run, minutes=minutes):
                continue
            steps = round(60 * minutes / seconds)
            there = dataclasses.replace(config, device=options.device)
            train_to(there, options.runs / name / run, steps)
            row = {"run": run, "minutes": minutes, "steps": steps, "trained_on": options.device}
            record.add(row | dict(score(options.runs / name / run)))
    return record


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
