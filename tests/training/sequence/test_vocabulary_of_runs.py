"""A run keeps its tokenizer: going on and measuring learn none, and fetch none from elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusewire.data import corpus, documents, tokenizers
from fusewire.errors import InputError
from fusewire.models.language import (
    BagConfig,
    RecurrentConfig,
    RecurrentEncoderDecoderConfig,
    TransformerConfig,
    WordVectors,
)
from fusewire.recipes import language as recipes
from fusewire.training.metrics import read_metrics
from fusewire.training.processes import Processes
from fusewire.training.sequence import classifier, language, masked, seq2seq
from fusewire.training.sequence.classifier import ClassifierRunConfig
from fusewire.training.sequence.config import LanguageConfig, SamplingConfig
from fusewire.training.sequence.masked import MaskedConfig
from fusewire.training.sequence.seq2seq import Seq2SeqConfig

LEARNT = ["characters", "words", "bpe", "wordpiece", "unigram"]
STEPS = {"steps": 4, "batch": 2, "validate_every": 2, "save_every": 2, "vocab_size": 300}
LSTM = RecurrentConfig("lstm", layers=1, embed_dim=8, hidden_size=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = "the cat sat on the mat, and the dog ran to the log.\n\n" * 40
    (tmp_path / "text.txt").write_text(text)
    words = ["cat", "mat", "dog", "log", "sat"]
    rows = [
        {
            "text": f"a {word} of {other}s",
            "label": word[1],
            "source": f"{word}{other}",
            "target": word,
        }
        for word in words
        for other in words
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def language_config(folder: Path, **changes: Any) -> LanguageConfig:
    wanted: dict[str, Any] = {"model": LSTM, "data": folder / "text.txt", "context": 8}
    sampling = SamplingConfig(length=5)
    return LanguageConfig(**(wanted | STEPS | {"sampling": sampling} | changes))


def masked_config(folder: Path, **changes: Any) -> MaskedConfig:
    sizes = TransformerConfig(context=16, layers=1, heads=2, embed_dim=8)
    wanted: dict[str, Any] = {"model": sizes, "data": folder / "text.txt", "context": 16}
    return MaskedConfig(**(wanted | STEPS | changes))


def classifier_config(folder: Path, **changes: Any) -> ClassifierRunConfig:
    wanted: dict[str, Any] = {"model": BagConfig(8), "data": folder / "rows.jsonl"}
    return ClassifierRunConfig(**(wanted | STEPS | changes))


def seq2seq_config(folder: Path, **changes: Any) -> Seq2SeqConfig:
    sizes = RecurrentEncoderDecoderConfig("gru", "luong", 8, 8)
    wanted: dict[str, Any] = {"model": sizes, "data": folder / "rows.jsonl", "most_tokens": 8}
    return Seq2SeqConfig(**(wanted | STEPS | changes))


def denoising_config(folder: Path, **changes: Any) -> Seq2SeqConfig:
    noise = {"learns": "denoising", "data": folder / "text.txt"}
    return seq2seq_config(folder, **(noise | changes))


RUNS: dict[str, tuple[Any, Callable[..., Any]]] = {
    "language": (language, language_config),
    "documents": (language, lambda f, **c: language_config(f, documents="paragraphs", **c)),
    "masked": (masked, masked_config),
    "classifier": (classifier, classifier_config),
    "seq2seq": (seq2seq, seq2seq_config),
    "denoising": (seq2seq, denoising_config),
}


def forbid_learning(patches: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a tokenizer is learnt although the run has one")

    for module in (corpus, documents, tokenizers):
        patches.setattr(module, "make_tokenizer", refuse)


@pytest.mark.parametrize(
    ("kind", "tokenizer"),
    [*(("language", tokenizer) for tokenizer in LEARNT)]
    + [(kind, "wordpiece") for kind in RUNS if kind != "language"],
)
def test_a_resumed_run_keeps_its_tokenizer(
    kind: str, tokenizer: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, configured = RUNS[kind]
    training.train(configured(folder, tokenizer=tokenizer), folder / "whole")
    shutil.copytree(folder / "whole", folder / "stopped")
    shutil.rmtree(folder / "stopped" / "checkpoint" / "step-4")
    forbid_learning(monkeypatch)
    training.resume(folder / "stopped")
    rows = [read_metrics(folder / run / "metrics.jsonl") for run in ("whole", "stopped")]
    assert rows[0] == rows[1]
    if kind != "denoising":
        assert training.evaluate(folder / "stopped") == training.evaluate(folder / "whole")


def starts_from_text(folder: Path, kind: str) -> Path:
    training, configured = RUNS["language" if kind == "classifier" else kind]
    run = folder / "first"
    training.train(configured(folder, tokenizer="wordpiece"), run)
    return run


@pytest.mark.parametrize("kind", ["language", "masked", "classifier", "denoising"])
def test_a_run_needs_no_longer_what_it_started_from(kind: str, folder: Path) -> None:
    training, configured = RUNS[kind]
    start = starts_from_text(folder, kind)
    changes = {"model": LSTM} if kind == "classifier" else {}
    training.train(configured(folder, start=start, **changes), folder / "second")
    start.rename(folder / "moved")
    training.resume(folder / "second", steps=5)
    if kind != "denoising":
        training.evaluate(folder / "second")


@pytest.mark.parametrize("kind", ["language", "documents", "masked", "classifier", "seq2seq"])
def test_other_data_are_not_measured_as_the_runs_own(kind: str, folder: Path) -> None:
    training, configured = RUNS[kind]
    config = configured(folder)
    training.train(config, folder / "run")
    changed = config.data.read_text().replace('"label": "a"', '"label": "z"').replace("mat", "rug")
    config.data.write_text(changed)
    with pytest.raises(InputError, match="the data has changed since"):
        training.evaluate(folder / "run")


@pytest.mark.parametrize("kind", ["language", "masked"])
def test_more_training_goes_on_from_the_embedding_that_has_learnt(kind: str, folder: Path) -> None:
    training, configured = RUNS[kind]
    table = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    WordVectors(["cat", "dog"], table).save(folder / "words.safetensors")
    first = configured(folder, embedding=folder / "words.safetensors", learning_rate=0.1)
    training.train(first, folder / "first")
    more = recipes.encoder if kind == "masked" else recipes.default
    kinds = () if kind == "masked" else ("lstm",)
    config = more(folder / "text.txt", *kinds, start=folder / "first")
    vocabulary = training.TRAINING.load(config, None).vocabulary
    learner = training.TRAINING.build_learner(config, vocabulary, Processes("cpu"), new=True)
    _, trained, _ = training.TRAINING.open(folder / "first")
    torch.testing.assert_close(learner.model.embedding.weight, trained.embedding.weight)
