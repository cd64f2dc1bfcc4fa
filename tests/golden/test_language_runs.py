"""Ten steps of each language model: the same bits from run to run, the same losses as ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fusewire.models.language import RecurrentConfig, TransformerConfig
from fusewire.training.metrics import read_metrics
from fusewire.training.sequence import language
from fusewire.training.sequence.config import LanguageConfig, SamplingConfig

GOLDEN = json.loads((Path(__file__).parent / "language_losses.json").read_text())
MODELS = {
    "transformer": TransformerConfig(context=32, layers=2, heads=4, embed_dim=32, kv_heads=2),
    **{
        cell: RecurrentConfig(cell=cell, layers=2, embed_dim=32, hidden_size=32)
        for cell in ("lstm", "gru", "rnn")
    },
}


def losses_of_ten_steps(model: str, path: Path) -> list[float]:
    config = LanguageConfig(
        model=MODELS[model],
        steps=10,
        batch=4,
        context=32,
        learning_rate=0.01,
        warmup_steps=3,
        validate_every=10,
        validation_tokens=256,
        save_every=10,
        sampling=SamplingConfig(length=5),
    )
    language.train(config, path)
    return [row["loss"] for row in read_metrics(path / "metrics.jsonl")]


@pytest.mark.parametrize("model", MODELS)
def test_ten_steps_repeat_to_the_last_bit(model: str, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, second = (losses_of_ten_steps(model, tmp_path / name) for name in ("a", "b"))
    finally:
        torch.set_num_threads(before)
    assert first == second
    # Other machines and versions of PyTorch round otherwise; a changed model differs by more.
    assert first == pytest.approx(GOLDEN[model], rel=2e-4)
