"""Ring-8 and Grid-25: which losses collapse, and which cover every mode.

python -m benches.training.mixtures
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import typing
from pathlib import Path
from typing import cast

from benches.training.stages import Record, train_to
from fusewire.models.gan import LossName
from fusewire.recipes import gan
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import DataConfig, DataKind
from fusewire.training.evaluation.report import evaluate

_LOSSES: tuple[LossName, ...] = typing.get_args(LossName)
_CLIPPED = "wasserstein, clipped"
_KINDS: tuple[DataKind, ...] = ("ring8", "grid25")


def configuration(kind: DataKind, loss: str) -> GanConfig:
    """The recipe of a loss; with clipped weights instead of the penalty where its name says so."""
    if loss != _CLIPPED:
        return gan.default(DataConfig(kind), "mlp", cast(LossName, loss))
    # With 0.01, as in the paper, four layers pass hardly anything on.
    return gan.default(DataConfig(kind), "mlp", "wasserstein", weight_clip=0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/shown"), help="where runs live")
    parser.add_argument(
        "--losses", nargs="+", choices=[*_LOSSES, _CLIPPED], default=[*_LOSSES, _CLIPPED]
    )
    parser.add_argument("--kinds", nargs="+", choices=_KINDS, default=_KINDS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of every run; by default those of its recipe")
    parser.add_argument("--count", type=int, default=2500, help="points to count")
    parser.add_argument("--record", type=Path, help="file to write; by default in benches/record")
    options = parser.parse_args()
    record = Record("mixtures", options.record)
    for seed, kind, loss in itertools.product(options.seeds, options.kinds, options.losses):
        key = {"data": kind, "loss": loss, "seed": seed}
        if record.has(**key):
            continue
        config = dataclasses.replace(configuration(kind, loss), seed=seed)
        config = dataclasses.replace(config, steps=options.steps or config.steps)
        path = options.runs / "mixtures" / f"{kind}-{loss}-{seed}"
        train_to(config, path, config.steps)
        result = evaluate(path, options.count)
        told = {name: result.scores[name] for name in ("modes", "near_a_mode")}
        record.add(key | {"steps": config.steps} | told | {"told": result.conditions["modes"]})


if __name__ == "__main__":
    main()
