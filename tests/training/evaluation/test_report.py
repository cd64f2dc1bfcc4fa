"""What an evaluation asks a generator for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fusewire.training.adversarial.data import DataConfig, load_samples
from fusewire.training.adversarial.samples import TrainedGenerator
from fusewire.training.evaluation.features import Numbers
from fusewire.training.evaluation.report import evaluate_samples


class Asked(torch.nn.Module):
    """A generator that makes what is asked for, each class as a number of its own."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def noise(self, count: int, source: torch.Generator) -> torch.Tensor:
        return torch.rand(count, 2, generator=source)

    def forward(self, noise: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        return noise if labels is None else torch.stack((labels.float(), noise[:, 0]), 1)


def test_evaluation_asks_for_classes_as_often_as_they_are_real(tmp_path: Path) -> None:
    # Nine in ten are of the first class, and the last is beyond the five hundredth sample.
    told = torch.cat((torch.zeros(900, dtype=torch.long), torch.arange(700)))
    table = tmp_path / "a.csv"
    lines = [f"{number},{number},{place}" for place, number in enumerate(told.tolist())]
    table.write_text("kind,x,y\n" + "\n".join(lines))
    data = DataConfig("vectors", table, label_column="kind")
    samples = load_samples(data, "identity")
    asked = Asked(samples.format.classes)
    trained = TrainedGenerator(asked, samples.format, tmp_path)  # type: ignore[arg-type]
    seen = []
    asked.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    result = evaluate_samples(trained, samples, data, 2 * len(told), 0, None, Numbers())
    assert torch.equal(torch.cat(seen).bincount(), 2 * told.bincount())
    assert result.conditions["classes asked for"] == "those of the real samples"


def test_seeds_of_evaluation_share_no_sample(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((30, 2)))
    data = DataConfig("vectors", tmp_path / "a.npy")
    samples, asked, seen = load_samples(data, "identity"), Asked(0), []
    asked.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    trained = TrainedGenerator(asked, samples.format, tmp_path)  # type: ignore[arg-type]
    for seed in (0, 1, 2):
        evaluate_samples(trained, samples, data, 1200, seed, None)
    rows = torch.cat(seen)
    assert len(rows) == 3600
    assert len(rows.unique(dim=0)) == len(rows)
