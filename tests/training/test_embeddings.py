"""Word vectors: what is learnt, what is resumed, and what a run leaves."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from fusewire.models.language import Subwords
from fusewire.training import embeddings
from fusewire.training.embeddings import EmbeddingsConfig, Text
from fusewire.training.metrics import read_metrics

ANIMALS, TOOLS = ["cat", "dog", "cow", "hen"], ["saw", "axe", "file", "drill"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Paragraphs of eight words of one topic."""
    random = np.random.default_rng(0)
    topics = [ANIMALS, TOOLS]
    lines = [" ".join(random.choice(topics[number % 2], 8)) for number in range(600)]
    (tmp_path / "text.txt").write_text("\n\n".join(lines))
    return tmp_path / "text.txt"


def make_config(data: Path, **changes: object) -> EmbeddingsConfig:
    config = EmbeddingsConfig(
        data=data, dim=16, window=3, sample=0.0, epochs=4, words_per_step=1000, save_every=7
    )
    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize("objective", ["skip-gram", "cbow"])
@pytest.mark.parametrize("subwords", [None, Subwords(buckets=100)])
def test_words_of_one_topic_are_neighbours(
    objective: str, subwords: Subwords | None, data: Path, tmp_path: Path
) -> None:
    config = make_config(data, objective=objective, subwords=subwords, epochs=8, learning_rate=0.1)
    result = embeddings.train(config, tmp_path / "run")
    vectors = embeddings.load(tmp_path / "run")
    assert set(vectors.words) == {*ANIMALS, *TOOLS}
    nearest = {word for word, _ in vectors.neighbours("cat", count=3)}
    assert nearest == set(ANIMALS) - {"cat"}
    assert result.made["vectors"].exists()
    if subwords:
        assert vectors.vector("cats").shape == (16,)


def test_a_resumed_run_equals_one_that_never_stopped(data: Path, tmp_path: Path) -> None:
    config = make_config(data)
    steps = embeddings.train(config, tmp_path / "whole").step
    assert steps == 4 * Text(config).steps
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoint" / f"step-{steps}")
    (tmp_path / "stopped" / embeddings.VECTORS).unlink()
    assert embeddings.resume(tmp_path / "stopped").step == steps
    whole, stopped = (embeddings.load(tmp_path / name) for name in ("whole", "stopped"))
    np.testing.assert_array_equal(whole.vectors, stopped.vectors)
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "stopped")]
    assert rows[0] == rows[1]


def test_steps_are_whole_sentences_and_an_epoch_every_word(data: Path) -> None:
    text = Text(make_config(data))
    words = []
    for step in range(text.steps):
        part, ends = text.at(step)
        assert ends[0] == 0
        assert ends[-1] == len(part)
        assert (np.diff(ends) == 8).all()
        words.append(part)
    assert len(np.concatenate(words)) == 4800
    np.testing.assert_array_equal(text.at(text.steps)[0], text.at(0)[0])
