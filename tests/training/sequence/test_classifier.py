"""Classifiers: what learns and what does not, what is measured, and where they start from."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fusewire.errors import InputError
from fusewire.models.language import BagConfig, RecurrentConfig, TransformerConfig, WordVectors
from fusewire.training.metrics import read_metrics
from fusewire.training.processes import Processes
from fusewire.training.sequence import classifier, language, masked
from fusewire.training.sequence.classifier import TRAINING, ClassifierRunConfig
from fusewire.training.sequence.config import LanguageConfig, SamplingConfig
from fusewire.training.sequence.masked import MaskedConfig
from fusewire.training.sequence.runs import Vocabulary

SIZES = TransformerConfig(context=24, layers=2, heads=2, embed_dim=16)
BAG = BagConfig(16)
LSTM = RecurrentConfig("lstm", layers=2, embed_dim=16, hidden_size=16)
GOOD, BAD = ["good", "fine", "nice", "great"], ["bad", "poor", "awful", "weak"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = [
        json.dumps({"text": f"{word} film {number}", "label": label})
        for label, words in (("good", GOOD), ("bad", BAD))
        for word in words
        for number in range(12)
    ]
    (tmp_path / "films.jsonl").write_text("\n".join(lines))
    return tmp_path / "films.jsonl"


def make_config(data: Path, **changes: object) -> ClassifierRunConfig:
    config = ClassifierRunConfig(
        model=SIZES,
        data=data,
        tokenizer="words",
        steps=4,
        batch=8,
        most_tokens=24,
        learning_rate=0.01,
        warmup_steps=1,
        validate_every=2,
        save_every=2,
        validation=0.25,
    )
    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize("sizes", [SIZES, LSTM, BAG])
def test_classes_are_learnt_and_measured(data: Path, tmp_path: Path, sizes: object) -> None:
    rate = 0.1 if sizes is BAG else 0.01
    config = make_config(
        data, model=sizes, steps=40, learning_rate=rate, validate_every=40, save_every=40
    )
    result = classifier.train(config, tmp_path / "run")
    assert result.metrics["validation_accuracy"] == 1.0
    assert result.metrics["validation_macro_f1"] == 1.0
    assert result.made["confusion"].exists()
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["classes"] == ["bad", "good"]
    assert sum(map(sum, evaluation["confusion"])) == 24

    measured = [classifier.evaluate(tmp_path / "run", batch=batch) for batch in (1, 5, 64)]
    for row in measured:
        assert row["confusion"] == evaluation["confusion"]
        assert row["loss"] == pytest.approx(evaluation["loss"], rel=1e-4)


@pytest.mark.parametrize("sizes", [SIZES, LSTM])
def test_packed_texts_are_learnt_as_padded_ones(data: Path, tmp_path: Path, sizes: object) -> None:
    losses = []
    for packed in (False, True):
        classifier.train(make_config(data, model=sizes, packed=packed), tmp_path / f"{packed}")
        rows = read_metrics(tmp_path / f"{packed}" / "metrics.jsonl")
        losses.append([(row["loss"], row["gradient_norm"]) for row in rows])
    assert losses[0] == [pytest.approx(row, rel=2e-4) for row in losses[1]]


@pytest.mark.parametrize("sizes", [SIZES, LSTM])
@pytest.mark.parametrize("tuning", ["full", "gradual", "lora", "frozen"])
def test_a_resumed_run_equals_one_that_never_stopped(
    data: Path, tmp_path: Path, tuning: str, sizes: object
) -> None:
    config = make_config(data, model=sizes, tuning=tuning, unfreeze_every=1)
    classifier.train(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoint" / "step-4")
    assert classifier.resume(tmp_path / "stopped").step == 4
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "stopped")]
    assert rows[0] == rows[1]


def weights_after(config: ClassifierRunConfig, path: Path) -> dict[str, torch.Tensor]:
    classifier.train(config, path)
    return TRAINING.open(path)[1].state_dict()


def test_what_is_frozen_stays(data: Path, tmp_path: Path) -> None:
    config = make_config(data, tuning="frozen", steps=2)
    start = TRAINING.build_learner(
        config, classifier._load(config).vocabulary, Processes("cpu"), new=True
    ).model.state_dict()
    start = {name: weight.clone() for name, weight in start.items()}
    after = weights_after(config, tmp_path / "run")
    moved = {name for name in after if not torch.equal(after[name], start[name])}
    assert moved == {"head.weight", "head.bias"}


def test_layers_thaw_one_after_another(data: Path, tmp_path: Path) -> None:
    snapshots = [
        weights_after(
            make_config(data, tuning="gradual", unfreeze_every=1, steps=steps, warmup_steps=0),
            tmp_path / str(steps),
        )
        for steps in (1, 2, 3)
    ]

    def moved(prefix: str, first: int) -> bool:
        return any(
            not torch.equal(snapshots[first][name], snapshots[first + 1][name])
            for name in snapshots[0]
            if name.startswith(prefix)
        )

    assert moved("reader.blocks.1", 0)
    assert not moved("reader.blocks.0", 0)
    assert moved("reader.blocks.0", 1)
    assert not moved("reader.embedding", 1)


def test_learning_rates_shrink_with_depth(data: Path) -> None:
    config = make_config(data, shrinking=0.5)
    vocabulary = classifier._load(config).vocabulary
    learner = TRAINING.build_learner(config, vocabulary, Processes("cpu"), new=True)
    scales = {group["depth"]: group["scale"] for group in learner.optimizer.param_groups}
    assert scales == {0: 1.0, 1: 0.5, 2: 0.25, 3: 0.125}


def test_rare_classes_can_weigh_as_much(tmp_path: Path) -> None:
    rows = [{"text": f"{n} a", "label": "rare" if n % 10 == 0 else "common"} for n in range(100)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = make_config(tmp_path / "rows.jsonl", balanced=True, tokenizer="bytes")
    material = classifier._load(config)
    task = material.task(config, Processes("cpu"))
    assert task._weights[1] > 3 * task._weights[0]


@pytest.mark.parametrize("balanced", [False, True])
def test_a_batch_read_in_parts_is_the_batch(balanced: bool, tmp_path: Path) -> None:
    rows = [{"text": f"{n} a", "label": "rare" if n % 5 == 0 else "common"} for n in range(100)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = []
    for parts in (1, 2, 8):
        config = make_config(
            tmp_path / "rows.jsonl", model=BAG, balanced=balanced, dropout=0.0, accumulate=parts
        )
        classifier.train(config, tmp_path / f"{parts}")
        logged = read_metrics(tmp_path / f"{parts}" / "metrics.jsonl")
        found.append([(row["loss"], row["gradient_norm"]) for row in logged])
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=2e-5)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_classifier_starts_from_an_encoder(tmp_path: Path, tuning: str) -> None:
    (tmp_path / "text.txt").write_text("a good film and a bad film. " * 60)
    pretraining = MaskedConfig(
        model=SIZES,
        data=tmp_path / "text.txt",
        tokenizer="characters",
        steps=2,
        batch=2,
        context=24,
        warmup_steps=0,
    )
    masked.train(pretraining, tmp_path / "encoder")
    _, encoder, _ = masked.TRAINING.open(tmp_path / "encoder")
    (tmp_path / "known.jsonl").write_text(
        "\n".join(
            json.dumps({"text": f"a {word} film" + "m" * n, "label": word})
            for word in ("good", "bad")
            for n in range(10)
        )
    )
    config = make_config(tmp_path / "known.jsonl", start=tmp_path / "encoder", tuning=tuning)
    vocabulary = classifier._load(config).vocabulary
    model = TRAINING.build_learner(config, vocabulary, Processes("cpu"), new=True).model
    tokens = torch.randint(0, 10, (2, 7))
    torch.testing.assert_close(model.reader.eval()(tokens), encoder(tokens))
    classifier.train(config, tmp_path / "run")


@pytest.mark.parametrize("tuning", ["full", "gradual", "lora", "frozen"])
def test_a_classifier_starts_from_a_causal_model(data: Path, tmp_path: Path, tuning: str) -> None:
    pretraining = LanguageConfig(
        model=LSTM, steps=2, batch=2, context=16, sampling=SamplingConfig(length=3)
    )
    language.train(pretraining, tmp_path / "lm")
    config = make_config(data, model=LSTM, start=tmp_path / "lm", tuning=tuning)
    vocabulary = classifier._load(config).vocabulary
    model = TRAINING.build_learner(config, vocabulary, Processes("cpu"), new=True).model
    tokens = torch.randint(0, 100, (2, 7))
    _, reader, _ = language.TRAINING.open(tmp_path / "lm")
    torch.testing.assert_close(model.reader.eval()(tokens), reader(tokens))
    classifier.train(config, tmp_path / "run")
    wrong = dataclasses.replace(config, model=dataclasses.replace(LSTM, layers=1))
    with pytest.raises(InputError, match="of another kind or of other sizes"):
        classifier.train(wrong, tmp_path / "wrong")


def test_an_embedding_starts_from_word_vectors(data: Path, tmp_path: Path) -> None:
    table = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).numpy()
    WordVectors(["good", "zebra"], table).save(tmp_path / "words.safetensors")
    config = make_config(data, embedding=tmp_path / "words.safetensors")
    vocabulary: Vocabulary = classifier._load(config).vocabulary
    model = TRAINING.build_learner(config, vocabulary, Processes("cpu"), new=True).model
    row = model.reader.embedding.weight[int(vocabulary.tokenizer.encode("good")[0])].detach()
    direction = row / row.norm()
    expected = torch.from_numpy(table[0]) / torch.from_numpy(table[0]).norm()
    torch.testing.assert_close(direction, expected, rtol=1e-4, atol=1e-5)


def test_texts_of_one_class_are_measured_too(data: Path, tmp_path: Path) -> None:
    classifier.train(make_config(data), tmp_path / "run")
    good = tmp_path / "good.jsonl"
    lines = data.read_text().split("\n")
    good.write_text("\n".join(line for line in lines if '"good"' in line))
    measured = classifier.evaluate(tmp_path / "run", good)
    assert sum(measured["confusion"][0]) == 0
    assert sum(measured["confusion"][1]) == 48
    good.write_text(json.dumps({"text": "so so", "label": "fair"}))
    with pytest.raises(InputError, match="does not know: fair; it knows bad, good"):
        classifier.evaluate(tmp_path / "run", good)


def test_an_empty_text_is_a_text(data: Path) -> None:
    config = make_config(data)
    tokenizer = classifier._load(config).vocabulary.tokenizer
    ((ids, label),) = classifier.encode([("", 1)], tokenizer, 24)
    assert (ids.tolist(), label) == ([0], 1)
