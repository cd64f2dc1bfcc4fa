"""Ring-8 and Grid-25: which losses collapse, and which cover every mode.

python -m benches.training.mixtures
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path

from benches.training.stages import arguments, run_stages
from fusewire.models.gan import LossName
from fusewire.recipes import gan
from fusewire.training.adversarial.data import DataConfig, DataKind
from fusewire.training.evaluation.report import evaluate


def main() -> None:
    options = arguments(__doc__, [60]).parse_args()
    kinds: tuple[DataKind, ...] = ("ring8", "grid25")
    losses: tuple[LossName, ...] = typing.get_args(LossName)
    configs = {
        f"{kind}-{loss}": gan.default(DataConfig(kind), "mlp", loss)
        for kind in kinds
        for loss in losses
    }

    def score(path: Path) -> Mapping[str, object]:
        result = evaluate(path, min(options.count, 2500))
        return {
            "modes": result.scores["modes"],
            "near_a_mode": result.scores["near_a_mode"],
            "told": result.conditions["modes"],
        }

    run_stages("mixtures", configs, options, score)


if __name__ == "__main__":
    main()
