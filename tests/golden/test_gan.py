"""Ten steps of adversarial training: the same bits in every run, and the losses on record.

Run `python tests/golden/test_gan.py` to print the losses anew after a change that is meant to
change them.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fusewire.models.gan import MlpConfig
from fusewire.recipes import gan
from fusewire.training.adversarial.loop import train
from fusewire.training.metrics import read_metrics

GOLDEN = Path(__file__).with_name("gan_losses.json")
NAMES = ("discriminator_loss", "generator_loss")


def ten_steps(folder: Path) -> list[list[float]]:
    config = gan.demo()
    assert config.model == MlpConfig(hidden_sizes=(128, 128))
    config = dataclasses.replace(config, steps=10, log_every=1, checkpoint_every=10)
    path = train(config, folder).path
    return [[row[name] or 0.0 for name in NAMES] for row in read_metrics(path / "metrics.jsonl")]


def test_losses_are_equal_to_the_last_bit_in_every_run(tmp_path: Path) -> None:
    first, second = ten_steps(tmp_path / "first"), ten_steps(tmp_path / "second")
    assert len(first) == 10
    assert first == second
    printed = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(printed.splitlines()[-1]) == first


def test_losses_are_those_on_record(tmp_path: Path) -> None:
    # Machines differ in the order of their sums, and ten steps spread the rounding.
    golden = json.loads(GOLDEN.read_text())
    for found, expected in zip(ten_steps(tmp_path / "run"), golden, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(ten_steps(Path(folder) / "run")))
