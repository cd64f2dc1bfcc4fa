"""Spoken digits (fsdd): a generator of sound, its WAV files, spectrograms and scores.

FUSEWIRE_DATA=... python -m benches.training.speech
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benches.training.stages import arguments, run_stages
from fusewire.data.folder import data_folder
from fusewire.recipes import gan
from fusewire.training.adversarial.data import DataConfig
from fusewire.training.adversarial.samples import sample
from fusewire.training.evaluation.report import evaluate


def main() -> None:
    options = arguments(__doc__, [5, 15, 30]).parse_args()
    data = DataConfig("audio", data_folder("fsdd"), length=4096)
    configs = {
        "waves-relativistic": gan.default(data),
        "waves-wasserstein": gan.default(data, "convolutional", "wasserstein"),
    }

    def score(path: Path) -> Mapping[str, object]:
        result = evaluate(path, min(options.count, 480), keep=options.runs)
        sounds = sample(path, count=10)  # and its spectrograms beside it
        return dict(result.scores) | dict(result.conditions) | {"sounds": str(sounds)}

    run_stages("speech", configs, options, score)


if __name__ == "__main__":
    main()
