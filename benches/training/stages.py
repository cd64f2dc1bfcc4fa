"""Training in stages of time, with scores after each, kept in a record as they come."""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.loop import resume, train
from fusewire.training.checkpoint import checkpoint_steps
from fusewire.training.metrics import read_metrics

RECORDS = Path(__file__).parents[1] / "record"
_FIRST_STEPS = 20
_SPENT = "seconds.json"


def arguments(description: str | None, seconds: Sequence[float]) -> argparse.ArgumentParser:
    """The options that all of these commands have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=Path, default=Path("runs/shown"), help="where runs live")
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=list(seconds), help="of training, at each stage"
    )
    parser.add_argument("--count", type=int, default=5000, help="samples to score")
    parser.add_argument("--only", nargs="*", help="names of runs; all by default")
    parser.add_argument("--record", type=Path, help="file to write; by default in benches/record")
    return parser


class Record:
    """A JSON file of rows, written whenever one is added."""

    def __init__(self, name: str, path: Path | None) -> None:
        machine = platform.node() or "machine"
        day = dt.datetime.now(dt.UTC).date()
        self.path = path or RECORDS / f"{day}-{machine}-{name}.json"
        self.content: dict[str, Any] = {"name": name, "rows": []}
        if self.path.exists():
            self.content = json.loads(self.path.read_text())
        self.content |= {
            "date": str(day),
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "torch": torch.__version__,
            "commit": _commit(),
        }

    def has(self, **key: object) -> bool:
        """Whether there is a row with these values."""
        return any(all(row.get(k) == v for k, v in key.items()) for row in self.content["rows"])

    def add(self, row: Mapping[str, object]) -> None:
        """Adds a row, prints it, and writes the file."""
        self.content["rows"].append(dict(row))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")
        numbers = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
        print(", ".join(numbers), flush=True)


def train_until(config: GanConfig, path: Path, seconds: float) -> tuple[int, float]:
    """Trains, or goes on, until so many seconds of training have passed in all.

    Returns:
        The steps done, and the seconds.
    """
    checkpoints = path / "checkpoint"
    spent = json.loads((path / _SPENT).read_text()) if (path / _SPENT).exists() else 0.0
    while spent < seconds:
        done = (checkpoint_steps(checkpoints) or [0])[-1]
        more = _FIRST_STEPS if not done else max(1, round(done / spent * (seconds - spent)))
        # A first guess of the speed is poor, so that stages approach their end.
        more = max(_FIRST_STEPS, min(more, 4 * done))
        if done:
            resume(path, done + more)
        else:
            train(_with_steps(config, more), path)
        spent += _seconds_since(path, done)
        (path / _SPENT).write_text(json.dumps(spent))
    return checkpoint_steps(checkpoints)[-1], spent


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
        for seconds in options.seconds:
            if record.has(run=run, stage=seconds):
                continue
            steps, spent = train_until(config, options.runs / name / run, seconds)
            scores = score(options.runs / name / run)
            row = {"run": run, "stage": seconds, "steps": steps, "seconds": spent}
            record.add(row | {"steps_per_second": steps / spent} | dict(scores))
    return record


def _seconds_since(path: Path, done: int) -> float:
    """Seconds of the steps after `done`, without the start of the run and its last checkpoint."""
    rows = [row for row in read_metrics(path / "metrics.jsonl") if row["step"] > done]
    between = (rows[-1]["time"] - rows[0]["time"]) / (rows[-1]["step"] - rows[0]["step"])
    return between * (rows[-1]["step"] - done)


def _with_steps(config: GanConfig, steps: int) -> GanConfig:
    # Checkpoints are made where stages end.
    return dataclasses.replace(config, steps=steps, checkpoint_every=1_000_000)


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
