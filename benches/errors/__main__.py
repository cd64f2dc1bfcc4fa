"""How large our errors are beside PyTorch's, over random inputs.

`python -m benches.errors` draws sizes, layouts and options from seeds, computes each trial with our
operator, with PyTorch's of the same type, and with PyTorch's in float64, and prints for every
result (outputs, and the gradients of all operands) our error norm over PyTorch's: the geometric
mean over all trials, the ratio that 95 of 100 do not exceed, the largest with its seed, and in how
many trials ours is above or below by more than chance. "few" counts trials of so few independent
errors (`FEW` in summary.py) that their own ratio says little: they are in the mean only. "exact"
counts those in which ours, and PyTorch's, alone has no error at all: they are in nothing else.
`--operators attention --types float32 --first 17 --trials 1` repeats the trial of seed 17.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benches.errors import attention, linear, recurrent
from benches.errors.summary import Outcome, Row, by_option, by_result, table
from benches.errors.trial import Draw, Trial, ratios
from benches.machine import machine

OPERATORS: dict[str, Callable[[Draw, torch.dtype], Trial]] = {
    "attention": attention.trial,
    **{cell: partial(recurrent.trial, cell) for cell in recurrent.CELLS},
    "linear": linear.trial,
}
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MOST_TOLD = 3
"""Results whose worst trial is described."""
LEAST_TRIALS = 10
"""Trials that an option must have in common to be told."""
TOLD_ABOVE = 1.01
"""A geometric mean that is told with the option that it comes with."""


def outcome(operator: str, dtype: str, seed: int) -> Outcome:
    trial = OPERATORS[operator](Draw(seed), TYPES[dtype])
    return Outcome(seed, trial.told, trial.options, ratios(trial))


def told(outcomes: list[Outcome]) -> str:
    """The table, the worst trials, and what means above 1 come with."""
    rows = by_result(outcomes)
    lines = [table(rows)]
    by_seed = {outcome.seed: outcome for outcome in outcomes}
    worst = sorted((row for row in rows if row.worst >= 0), key=lambda row: -row.largest)
    for row in worst[:MOST_TOLD]:
        lines.append(
            f"  {row.largest:.2f} {row.result}, seed {row.worst}: {by_seed[row.worst].told}"
        )
    for option, of_option in by_option(outcomes).items():
        above = [row for row in of_option if row.trials >= LEAST_TRIALS and row.mean > TOLD_ABOVE]
        if above:
            means = ", ".join(f"{row.result} {row.mean:.3f}" for row in above)
            lines.append(f"  above {TOLD_ABOVE} with {option} ({above[0].trials}): {means}")
    return "\n".join(lines)


def as_json(rows: list[Row]) -> dict[str, dict[str, object]]:
    """The rows by their results; no percentile or maximum where all trials have few errors."""
    return {
        row.result: {
            name: None if isinstance(number, float) and math.isnan(number) else number
            for name, number in row._asdict().items()
            if name != "result"
        }
        for row in rows
    }


def commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.check_output(["git", *arguments], text=True).strip()

    return git("rev-parse", "HEAD") + " and changes" * bool(git("status", "--porcelain"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=list(OPERATORS))
    parser.add_argument("--types", nargs="+", choices=TYPES, default=list(TYPES))
    parser.add_argument("--trials", type=int, default=200, help="of each operator and type")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    content = {"machine": machine(), "commit": commit(), "trials": options.trials}
    content |= {"first": options.first, "results": {}, "by_option": {}}
    for operator in options.operators:
        for dtype in options.types:
            seeds = range(options.first, options.first + options.trials)
            outcomes = [outcome(operator, dtype, seed) for seed in seeds]
            print(f"\n{operator}, {dtype}\n{told(outcomes)}", flush=True)
            name = f"{operator}-{dtype}"
            content["results"][name] = as_json(by_result(outcomes))
            content["by_option"][name] = {
                option: {row.result: row.mean for row in rows}
                for option, rows in by_option(outcomes).items()
            }
    if options.record is not None:
        options.record.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
