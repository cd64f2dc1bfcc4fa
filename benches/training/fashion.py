"""Fashion-MNIST in full: networks and losses, scored per minute of training.

    FUSEWIRE_DATA=... python -m benches.training.fashion

The mission's network beside plain PyTorch and the example's faulty losses: benches.training.twin.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benches.training.stages import arguments, run_stages
from fusewire.data.folder import data_folder
from fusewire.recipes import gan
from fusewire.training.adversarial.data import DataConfig
from fusewire.training.evaluation.report import evaluate


def main() -> None:
    options = arguments(__doc__, [60, 120, 300, 600]).parse_args()
    data = DataConfig("images", data_folder("fashion-mnist") / "train-images-idx3-ubyte.gz")
    configs = {
        "mlp-non_saturating": gan.default(data, "mlp", "non_saturating"),
        "mlp-minimax": gan.default(data, "mlp", "minimax"),
        "convolutional-non_saturating": gan.default(data, "convolutional", "non_saturating"),
        "convolutional-hinge": gan.default(data, "convolutional", "hinge"),
        "convolutional-wasserstein": gan.default(data, "convolutional", "wasserstein"),
        "residual-relativistic": gan.default(data, "residual"),
    }

    def score(path: Path) -> Mapping[str, object]:
        result = evaluate(path, options.count, keep=options.runs)
        return dict(result.scores) | dict(result.conditions)

    run_stages("fashion-mnist", configs, options, score)


if __name__ == "__main__":
    main()
