"""Fashion-MNIST in full: networks and losses, scored per minute of training.

    FUSEWIRE_DATA=... python -m benches.training.fashion

Beside plain PyTorch, and with the example's faulty losses: benches.training.twin.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benches.training.stages import arguments, run_stages
from fusewire.data.folder import data_folder
from fusewire.recipes import gan
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import DataConfig
from fusewire.training.evaluation.report import evaluate


def configurations() -> dict[str, GanConfig]:
    """What is shown, by name."""
    data = DataConfig("images", data_folder("fashion-mnist") / "train-images-idx3-ubyte.gz")
    return {
        "mlp-non_saturating": gan.default(data, "mlp", "non_saturating"),
        "mlp-relativistic": gan.default(data, "mlp", "relativistic"),
        "convolutional-non_saturating": gan.default(data, "convolutional", "non_saturating"),
        "convolutional-hinge": gan.default(data, "convolutional", "hinge"),
        "convolutional-wasserstein": gan.default(data, "convolutional", "wasserstein"),
        "residual-relativistic": gan.default(data, "residual"),
    }


def main() -> None:
    options = arguments(__doc__, [1, 2, 5, 10]).parse_args()

    def score(path: Path) -> Mapping[str, object]:
        result = evaluate(path, options.count, keep=options.runs)
        return dict(result.scores) | dict(result.conditions)

    run_stages("fashion-mnist", configurations(), options, score)


if __name__ == "__main__":
    main()
