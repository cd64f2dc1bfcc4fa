"""The loop of language models: what it learns, carries, measures and saves."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fusewire.data.corpus import make_corpus
from fusewire.data.text import RandomWindows
from fusewire.data.tokenizers import ByteTokenizer
from fusewire.errors import InputError
from fusewire.models.language import RecurrentConfig, TransformerConfig
from fusewire.recipes.tokens import tokenize
from fusewire.training.adam import Adam
from fusewire.training.checkpoint import checkpoint_steps
from fusewire.training.metrics import read_metrics
from fusewire.training.processes import Processes
from fusewire.training.sequence import language
from fusewire.training.sequence.config import LanguageConfig, SamplingConfig
from fusewire.training.sequence.language import (
    TRAINING,
    LanguageTask,
    build_model,
    mean_loss,
)
from fusewire.training.sequence.parts import Part
from fusewire.training.sequence.runs import Vocabulary

TEXT = "the cat sat on the mat, and the dog ran to the log. " * 40
MODELS = {
    "transformer": TransformerConfig(context=16, layers=1, heads=2, embed_dim=16),
    **{
        cell: RecurrentConfig(cell=cell, layers=1, embed_dim=16, hidden_size=16)
        for cell in ("rnn", "lstm", "gru")
    },
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are faster so, also on a machine that does other things."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def make_config(text_file: Path, model: str = "lstm", **changes: object) -> LanguageConfig:
    config = LanguageConfig(
        model=MODELS[model],
        data=text_file,
        tokenizer="characters",
        steps=8,
        batch=4,
        context=16,
        learning_rate=0.01,
        warmup_steps=2,
        validate_every=4,
        save_every=4,
        sampling=SamplingConfig(length=20, count=2),
    )
    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize("model", MODELS)
def test_a_run_directory_holds_everything(model: str, text_file: Path, tmp_path: Path) -> None:
    result = language.train(make_config(text_file, model), tmp_path / "run")

    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("config.json", "tokenizer.json", "metrics.jsonl"),
        *("losses.png", "samples.txt", "checkpoint"),
    }
    assert all(path.exists() for path in result.made.values())
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert ["validation_loss" in row for row in rows] == [step % 4 == 0 for step in range(1, 9)]
    assert not result.stopped_early
    assert result.metrics["bits_per_character"] == pytest.approx(
        result.metrics["validation_loss"] / math.log(2)
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["kind"] == "language"


@pytest.mark.parametrize("model", ["transformer", "lstm"])
def test_a_text_that_repeats_itself_is_learnt(model: str, text_file: Path, tmp_path: Path) -> None:
    config = make_config(
        text_file, model, steps=150, learning_rate=0.03, validate_every=150, save_every=150
    )
    result = language.train(config, tmp_path / "run")
    assert result.metrics["validation_loss"] < 1.0  # 2.6 is the entropy of its letters


@pytest.mark.parametrize("model", ["transformer", "lstm"])
def test_a_batch_read_in_parts_is_the_batch(model: str, text_file: Path, tmp_path: Path) -> None:
    found = []
    for parts in (1, 4):
        config = make_config(text_file, model, accumulate=parts)
        language.train(config, tmp_path / f"{parts}")
        rows = read_metrics(tmp_path / f"{parts}" / "metrics.jsonl")
        found.append([(row["loss"], row["gradient_norm"]) for row in rows])
    np.testing.assert_allclose(*found, rtol=1e-4)
    with pytest.raises(InputError, match="4 rows of a batch cannot be read in 3 equal parts"):
        language.train(make_config(text_file, model, accumulate=3), tmp_path / "none")


@pytest.mark.parametrize("model", ["transformer", "lstm"])
def test_activations_may_be_bfloat16(model: str, text_file: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        path = tmp_path / precision
        language.train(make_config(text_file, model, precision=precision), path)
        losses.append([row["loss"] for row in read_metrics(path / "metrics.jsonl")])
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.02)


def test_a_folder_and_a_file_of_tokens_are_texts(text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text(TEXT[:1000])
    (tmp_path / "folder" / "b.txt").write_text(TEXT[1000:])
    assert tokenize(tmp_path / "folder", tmp_path / "it.tokens", "characters") == len(TEXT)
    losses = []
    for path in (text_file, tmp_path / "folder", tmp_path / "it.tokens"):
        run = tmp_path / f"run-{path.name}"
        language.train(make_config(path, "gru"), run)
        losses.append([row["loss"] for row in read_metrics(run / "metrics.jsonl")])
    assert losses[0] == losses[1] == losses[2]
    other = make_config(tmp_path / "it.tokens", "gru", start=tmp_path / "other")
    language.train(make_config(text_file, "gru", tokenizer="bytes"), tmp_path / "other")
    with pytest.raises(InputError, match="was made with another tokenizer"):
        language.train(other, tmp_path / "refused")


@pytest.mark.parametrize("kind", ["words", "wordpiece"])
def test_tokens_without_ends_of_lines_write_too(kind: str, text_file: Path, tmp_path: Path) -> None:
    language.train(make_config(text_file, "gru", tokenizer=kind, vocab_size=60), tmp_path / "run")
    assert language.sample(tmp_path / "run", SamplingConfig(length=3)).startswith(".")
    with pytest.raises(InputError, match="the prompt ' ' has no token of this model"):
        language.sample(tmp_path / "run", SamplingConfig(prompt=" "))


@pytest.mark.parametrize("model", MODELS)
def test_a_resumed_run_equals_one_that_never_stopped(
    model: str, text_file: Path, tmp_path: Path
) -> None:
    config = make_config(text_file, model, steps=8, save_every=5, batch=2)
    language.train(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    # As if the process had been killed between steps 5 and 8.
    shutil.rmtree(tmp_path / "stopped" / "checkpoint" / "step-8")
    (tmp_path / "stopped" / "samples.txt").unlink()

    assert language.resume(tmp_path / "stopped").step == 8

    for name in ("metrics.jsonl", "samples.txt"):
        whole, stopped = (tmp_path / run / name for run in ("whole", "stopped"))
        assert stopped.read_text() == whole.read_text()


def test_a_resumed_run_makes_only_the_steps_that_are_left(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Begun anew it would end the same, only later.
    language.train(make_config(text_file, "gru", steps=5), tmp_path / "run")
    asked, batch = [], LanguageTask.batch

    def watch(task: LanguageTask, step: int, rows: slice) -> Part:
        asked.append(step)
        return batch(task, step, rows)

    monkeypatch.setattr(LanguageTask, "batch", watch)
    assert language.resume(tmp_path / "run", steps=8).step == 8
    assert asked == [5, 6, 7]


def test_a_signal_ends_the_step_and_saves(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = RandomWindows.at
    language.train(make_config(text_file, "transformer"), tmp_path / "whole")

    def interrupt(windows: RandomWindows, step: int):
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return at(windows, step)

    monkeypatch.setattr(RandomWindows, "at", interrupt)
    config = make_config(text_file, "transformer")
    result = language.train(config, tmp_path / "run")
    assert (result.step, result.stopped_early) == (3, True)
    assert checkpoint_steps(tmp_path / "run" / "checkpoint") == [3]
    monkeypatch.undo()

    assert language.resume(tmp_path / "run").step == 8
    whole, stopped = (
        [row["loss"] for row in read_metrics(tmp_path / run / "metrics.jsonl")]
        for run in ("whole", "run")
    )
    assert stopped == whole
    with pytest.raises(InputError, match="is finished: it has done 8 steps of 8"):
        language.resume(tmp_path / "run")


def test_changed_data_are_refused_on_resume(text_file: Path, tmp_path: Path) -> None:
    language.train(make_config(text_file), tmp_path / "run")
    text_file.write_text(TEXT.replace("cat", "cow"))
    with pytest.raises(InputError, match="data has changed"):
        language.resume(tmp_path / "run")


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_does_not_depend_on_the_batch(model: str) -> None:
    torch.manual_seed(0)
    corpus = make_corpus(TEXT, "characters", 16, "it")
    network = build_model(MODELS[model], corpus.tokenizer.vocab_size)
    losses = [mean_loss(network, corpus.train[:333], 16, batch) for batch in (1, 7, 64)]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


def test_the_loss_is_that_of_the_next_token() -> None:
    torch.manual_seed(0)
    network = build_model(MODELS["gru"], 30)
    tokens = np.arange(20)
    logits = network(torch.from_numpy(tokens)[None, :-1])[0]
    expected = -logits.log_softmax(-1)[0, torch.arange(19), torch.arange(1, 20)].mean().item()
    assert mean_loss(network, tokens, segment_len=100) == pytest.approx(expected, rel=1e-6)


def test_measuring_switches_dropout_off_and_on_again() -> None:
    torch.manual_seed(0)
    config = RecurrentConfig("rnn", embed_dim=16, hidden_size=16, dropout=0.5)
    network = build_model(config, 30)
    tokens = np.arange(20)
    assert mean_loss(network, tokens, 8) == mean_loss(network, tokens, 8)
    assert network.training


def test_gradients_are_clipped(text_file: Path, tmp_path: Path, monkeypatch) -> None:
    norms = []
    step = Adam.step

    def watch(optimizer: Adam, *arguments: object) -> object:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
        return step(optimizer, *arguments)

    monkeypatch.setattr(Adam, "step", watch)
    language.train(make_config(text_file, gradient_clip=0.01), tmp_path / "run")
    logged = [row["gradient_norm"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert len(norms) == len(logged) == 8
    np.testing.assert_allclose(norms, 0.01, rtol=1e-3)
    assert min(logged) > 0.01


def test_the_learning_rate_rises_and_falls(text_file: Path) -> None:
    config = make_config(
        text_file, steps=110, warmup_steps=10, learning_rate=1.0, final_learning_rate=0.1
    )
    rates = [config.learning_rate_at(step) for step in range(1, 111)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[59] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_only_matrices_decay(text_file: Path) -> None:
    config, vocabulary = make_config(text_file, weight_decay=0.5), Vocabulary(ByteTokenizer())
    learner = TRAINING.build_learner(config, vocabulary, Processes("cpu"), new=True)
    for group in learner.optimizer.param_groups:
        matrices = {parameter.dim() >= 2 for parameter in group["params"]}
        assert matrices == {group["weight_decay"] == 0.5}


def test_a_diverging_run_says_so(text_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="training diverged"):
        language.train(
            make_config(text_file, steps=50, learning_rate=1e30, warmup_steps=0), tmp_path / "run"
        )


def test_samples_continue_the_prompt(text_file: Path, tmp_path: Path) -> None:
    language.train(make_config(text_file), tmp_path / "run")
    settings = SamplingConfig(prompt="the dog", length=9, seed=4)
    text = language.sample(tmp_path / "run", settings)
    assert text == language.sample(tmp_path / "run", settings)
    assert text.startswith("the dog")
    assert len(text) <= 7 + 9 + 1
    with pytest.raises(InputError, match="unknown to this model: 'é'"):
        language.sample(tmp_path / "run", SamplingConfig(prompt="é"))


def test_characters_nobody_has_seen_are_read_unless_asked_otherwise(
    text_file: Path, tmp_path: Path
) -> None:
    tokenizer = LanguageConfig(model=MODELS["gru"]).tokenizer
    language.train(make_config(text_file, "gru", tokenizer=tokenizer), tmp_path / "run")
    text = language.sample(tmp_path / "run", SamplingConfig(prompt="世界", length=3))
    assert text.startswith("世界")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch": -3}, "batch must be at least 1, got -3"),
        ({"learning_rate": -1e-3}, "learning_rate must be more than 0, got -0.001"),
        ({"learning_rate": math.nan}, "learning_rate must be more than 0, got nan"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"context": 17}, "context must be at most the model's, 16, got 17"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, object], message: str, text_file: Path) -> None:
    with pytest.raises(InputError, match=message):
        make_config(text_file, "transformer", **changes)


@pytest.mark.parametrize(
    "changes", [{"device": "abacus"}, {"data": Path("absent.txt")}, {"context": 5000}]
)
def test_a_refused_run_leaves_nothing(
    changes: dict[str, object], text_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError):
        language.train(make_config(text_file, **changes), tmp_path / "deep" / "run")
    assert not (tmp_path / "deep").exists()
