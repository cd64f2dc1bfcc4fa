"""Dates in many forms to ISO, and English numbers to digits: both kinds of encoder-decoder.

    python -m benches.training.transduction --out benches/record/transduction.json

Each must write at least 99 % of the held-out items without a mistake; the attention map is a
picture in the run's directory. With another source before it, hardly an answer stays right.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benches.training.record import Record, whole
from fusewire.recipes import language
from fusewire.training.sequence import seq2seq

FORMS = [
    "{d:%d} {d:%B} {d:%Y}",
    "{d:%B} {d.day}, {d:%Y}",
    "{d:%A}, {d:%d} {d:%b} {d:%Y}",
    "{d.day}.{d.month}.{d:%Y}",
    "{d:%Y}/{d:%m}/{d:%d}",
    "{d:%b} {d:%d} {d:%y}",
    "the {d.day} of {d:%B} {d:%Y}",
    "{d:%d}-{d:%b}-{d:%Y}",
]
ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def dates() -> Iterator[tuple[str, str]]:
    first = date(1970, 1, 1)
    for day in range(20_000):
        found = first + timedelta(days=day)
        yield FORMS[(day * 7919) % len(FORMS)].format(d=found), found.isoformat()


def spell(number: int) -> str:
    if number < 20:
        return ONES[number]
    if number < 100:
        rest = number % 10
        return TENS[number // 10 - 2] + (f"-{ONES[rest]}" if rest else "")
    if number < 1000:
        rest = number % 100
        return f"{ONES[number // 100]} hundred" + (f" and {spell(rest)}" if rest else "")
    rest = number % 1000
    return f"{spell(number // 1000)} thousand" + (f" {spell(rest)}" if rest else "")


def numbers() -> Iterator[tuple[str, str]]:
    for number in range(0, 100_000, 5):
        yield spell(number + number // 5 % 5), str(number + number // 5 % 5)


TASKS = {"dates": dates, "numbers": numbers}


def prepare(task: str, folder: Path) -> Path:
    path = folder / f"{task}.jsonl"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = [json.dumps({"source": s, "target": t}) for s, t in TASKS[task]()]
        path.write_text("\n".join(rows) + "\n")
    return path


def train(task: str, model: str, steps: int, folder: Path) -> dict[str, Any]:
    config = language.seq2seq(prepare(task, folder), model, most_tokens=64)  # type: ignore[arg-type]
    every = max(1, steps // 8)
    config = dataclasses.replace(
        config, tokenizer="characters", steps=steps, validate_every=every, save_every=every
    )
    out = folder / f"{task}-{model}"
    unfinished = (out / "config.json").exists()
    result = whole(seq2seq.resume(out, steps) if unfinished else seq2seq.train(config, out))
    return {
        "exact": seq2seq.evaluate(out)["exact"],
        "exact_with_another_source": _with_another_source(out),
        "attention": str(result.made["attention"]),
    }


def _with_another_source(out: Path) -> float:
    """The part of answers that stay right when the encoder has read another source."""
    config, model, vocabulary = seq2seq.TRAINING.open(out)
    material = seq2seq.TRAINING.load(config, None)
    pairs = material.task(config, seq2seq.Processes("cpu"))._measured[:64]
    tokenizer = vocabulary.tokenizer
    shuffled = [pairs[place][0] for place in np.roll(np.arange(len(pairs)), 1)]
    with torch.no_grad():
        written = seq2seq.write(model, tokenizer, shuffled, config.most_tokens, 1)
    right = [text == tokenizer.decode(p[1]) for text, p in zip(written, pairs, strict=True)]
    return sum(right) / len(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benches/record/transduction.json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/transduction"))
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    arguments = parser.parse_args()
    record = Record(arguments.out)
    for task in arguments.tasks:
        for model in ("transformer", "luong", "bahdanau"):
            record.once(
                f"{task}, {model}, {arguments.steps} steps",
                lambda task=task, model=model: train(task, model, arguments.steps, arguments.runs),
            )


if __name__ == "__main__":
    main()
