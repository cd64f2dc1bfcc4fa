"""Masked language models: learnt, resumed, and a start for others."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from fusewire.errors import InputError
from fusewire.models.language import TransformerConfig
from fusewire.training.metrics import read_metrics
from fusewire.training.sequence import masked
from fusewire.training.sequence.masked import MaskedConfig

TEXT = "the cat sat on the mat, and the dog ran to the log. " * 40
SIZES = TransformerConfig(context=24, layers=1, heads=2, embed_dim=16)


def make_config(tmp_path: Path, **changes: object) -> MaskedConfig:
    (tmp_path / "text.txt").write_text(TEXT)
    config = MaskedConfig(
        model=SIZES,
        data=tmp_path / "text.txt",
        tokenizer="characters",
        steps=6,
        batch=4,
        context=24,
        learning_rate=0.01,
        warmup_steps=2,
        validate_every=3,
        save_every=3,
    )
    return dataclasses.replace(config, **changes)


def test_a_text_that_repeats_itself_is_learnt(tmp_path: Path) -> None:
    changes = {"steps": 300, "validate_every": 300, "save_every": 300}
    config = make_config(tmp_path, batch=16, **changes)
    config.data.write_text("abcdef" * 400)
    result = masked.train(config, tmp_path / "run")
    assert result.metrics["validation_accuracy"] > 0.9
    _, model, vocabulary = masked.TRAINING.open(tmp_path / "run")
    assert model.vocab_size == vocabulary.tokenizer.vocab_size + 1


def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path) -> None:
    masked.train(make_config(tmp_path), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoint" / "step-6")
    assert masked.resume(tmp_path / "stopped").step == 6
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "stopped")]
    assert rows[0] == rows[1]
    one, many = (masked.evaluate(tmp_path / "whole", batch=batch) for batch in (1, 16))
    assert one == pytest.approx(many)
    assert one["loss"] == pytest.approx(rows[0][-1]["validation_loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 25}, "context must be at most the model's, 24, got 25"),
        ({"masked": 0.0}, "masked must be at least 0.01, got 0.0"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make_config(tmp_path, **changes)
