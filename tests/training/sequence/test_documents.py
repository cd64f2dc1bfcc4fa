"""Training on packed documents: as on padded ones, resumed exactly, and measured whole."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from fusewire.data.batch import IGNORED
from fusewire.data.documents import load_documents, read_documents
from fusewire.errors import InputError
from fusewire.models.language import RecurrentConfig, TransformerConfig
from fusewire.training.metrics import read_metrics
from fusewire.training.processes import Processes
from fusewire.training.sequence import language, masked
from fusewire.training.sequence.config import LanguageConfig, SamplingConfig
from fusewire.training.sequence.masked import MaskedConfig
from fusewire.training.sequence.runs import Kind

TRANSFORMER = TransformerConfig(context=24, layers=2, heads=2, embed_dim=16)
LSTM = RecurrentConfig("lstm", layers=2, embed_dim=16, hidden_size=16)
MODELS = {"transformer": TRANSFORMER, "lstm": LSTM, "encoder": TRANSFORMER}


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    words = np.random.default_rng(0).choice(["cat", "dog", "sat", "ran", "mat"], 400)
    lines = [" ".join(words[first : first + 1 + first % 9]) for first in range(0, 390, 4)]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    return tmp_path / "lines.txt"


def make(text_file: Path, model: str, **changes: Any) -> tuple[Kind[Any], Any]:
    options: dict[str, Any] = {
        "model": MODELS[model],
        "data": text_file,
        "documents": "lines",
        "tokenizer": "characters",
        "steps": 6,
        "batch": 4,
        "context": 24,
        "learning_rate": 0.01,
        "warmup_steps": 2,
        "validate_every": 3,
        "save_every": 3,
    }
    if model == "encoder":
        return masked.TRAINING, MaskedConfig(**options | changes)
    options["sampling"] = SamplingConfig(length=5)
    return language.TRAINING, LanguageConfig(**options | changes)


@pytest.mark.parametrize("model", MODELS)
def test_packed_training_is_padded_training(model: str, text_file: Path) -> None:
    kind, config = make(text_file, model)
    processes, material = Processes("cpu"), kind.load(config, None)
    task = material.task(config, processes)
    learner = kind.build_learner(config, material.vocabulary, processes, new=True)
    twin = copy.deepcopy(learner.model)
    rival = torch.optim.AdamW(kind.groups(config, twin), lr=0.01, betas=(0.9, 0.99))
    for step in range(8):
        part = task.batch(step, slice(0, 4))
        assert part.inputs.shape[0] == 1
        assert len(part.boundaries) > 4
        loss, _, state = task.loss(learner.model, part, None)
        assert state is None
        expected = padded_loss(model, twin, part.inputs[0], part.targets[0], part.boundaries)
        torch.testing.assert_close(loss, expected, rtol=2e-5, atol=0)
        for made, optimizer in ((loss, learner.optimizer), (expected, rival)):
            optimizer.zero_grad()
            made.backward()
            for group in optimizer.param_groups:
                group["lr"] = 0.01
            optimizer.step()
    for ours, theirs in zip(learner.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-4)


def padded_loss(
    kind: str, model: Any, inputs: Tensor, targets: Tensor, boundaries: Tensor
) -> Tensor:
    lengths = boundaries.diff()
    rows = pad_sequence(inputs.split(lengths.tolist()), batch_first=True)
    wanted = pad_sequence(targets.split(lengths.tolist()), True, IGNORED)
    options = {} if kind == "transformer" else {"lengths": lengths}
    logits = model(rows, **options)
    logits = logits if kind == "encoder" else logits[0]
    return cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)


@pytest.mark.parametrize("model", MODELS)
def test_a_resumed_run_equals_one_that_never_stopped(
    model: str, text_file: Path, tmp_path: Path
) -> None:
    kind, config = make(text_file, model)
    kind.train(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoint" / "step-6")
    assert kind.resume(tmp_path / "stopped").step == 6
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "stopped")]
    assert rows[0] == rows[1]
    for file in (tmp_path / "whole" / "checkpoint" / "step-6").iterdir():
        twin = tmp_path / "stopped" / "checkpoint" / "step-6" / file.name
        assert twin.read_bytes() == file.read_bytes()

    evaluate = masked.evaluate if model == "encoder" else language.evaluate
    for data in (None, text_file):
        one, many = (evaluate(tmp_path / "whole", data, batch) for batch in (1, 16))
        assert one == pytest.approx(many, rel=1e-5)
    kept = evaluate(tmp_path / "whole")
    assert kept["loss"] == pytest.approx(rows[0][-1]["validation_loss"], rel=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_a_batch_read_in_parts_is_the_batch(model: str, text_file: Path, tmp_path: Path) -> None:
    found = []
    for parts in (1, 4):
        kind, config = make(text_file, model, accumulate=parts)
        kind.train(config, tmp_path / f"{parts}")
        rows = read_metrics(tmp_path / f"{parts}" / "metrics.jsonl")
        found.append([(row["loss"], row["gradient_norm"]) for row in rows])
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_documents_are_lines_paragraphs_or_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\nthree\r\n \r\nfour\n")
    (tmp_path / "b.txt").write_text("\nfive")
    (tmp_path / "nothing.txt").write_text("")
    (tmp_path / "blank.txt").write_bytes(b"\xef\xbb\xbf \r\n")
    assert read_documents(tmp_path, "lines") == [
        f"\n{word}\n" for word in ("one", "two", "three", "four", "five")
    ]
    paragraphs = ["\none\ntwo\n", "\nthree\n", "\nfour\n", "\nfive\n"]
    assert read_documents(tmp_path, "paragraphs") == paragraphs
    assert len(read_documents(tmp_path, "files")) == 2
    corpus = load_documents(tmp_path, "lines", "characters")
    assert len(corpus.train.bounds) == 5
    assert corpus.tokenizer.decode(corpus.validation.tokens) == "\nfive\n"
    with pytest.raises(InputError, match="has 1 files, and at least two are needed"):
        load_documents(tmp_path / "a.txt", "files", "bytes")
    short = tmp_path / "short.txt"
    short.write_text("yes\nhe said yes\n")  # a word and no end of a line is one token
    with pytest.raises(InputError, match="has one of lines that is longer than a token"):
        load_documents(short, "lines", "words")
    with pytest.raises(InputError, match="does not say where documents begin"):
        read_documents(tmp_path / "all.tokens", "lines")
