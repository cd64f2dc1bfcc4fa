"""Encoder-decoders: pairs are learnt through the encoder, noise is undone, padding is no target."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fusewire.data.masking import make_pairs
from fusewire.errors import InputError
from fusewire.models.language import (
    EncoderDecoderConfig,
    RecurrentEncoderDecoderConfig,
    TransformerConfig,
)
from fusewire.training.metrics import read_metrics
from fusewire.training.processes import Processes
from fusewire.training.sequence import seq2seq
from fusewire.training.sequence.parts import pair_part_of
from fusewire.training.sequence.seq2seq import TRAINING, Seq2SeqConfig

HALF = TransformerConfig(context=12, layers=1, heads=2, embed_dim=32)
MODELS = {
    "transformer": EncoderDecoderConfig(HALF, HALF),
    "luong": RecurrentEncoderDecoderConfig("gru", "luong", 16, 32),
    "bahdanau": RecurrentEncoderDecoderConfig("lstm", "bahdanau", 16, 32),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Words of four letters and their mirror images."""
    random = np.random.default_rng(0)
    words = {"".join(random.choice(list("abcd"), 4)) for _ in range(400)}
    rows = [json.dumps({"source": word, "target": word[::-1]}) for word in sorted(words)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    return tmp_path / "pairs.jsonl"


def make_config(data: Path, model: str = "transformer", **changes: object) -> Seq2SeqConfig:
    config = Seq2SeqConfig(
        model=MODELS[model],
        data=data,
        tokenizer="characters",
        steps=4,
        batch=8,
        most_tokens=8,
        learning_rate=0.01,
        warmup_steps=1,
        weight_decay=0.0,
        validate_every=2,
        save_every=2,
        measured=16,
    )
    return dataclasses.replace(config, **changes)


def test_a_transduction_is_learnt_by_way_of_the_encoder(data: Path, tmp_path: Path) -> None:
    config = make_config(
        data, "luong", steps=300, batch=32, validate_every=300, save_every=300, measured=20
    )
    result = seq2seq.train(config, tmp_path / "run")
    assert result.metrics["exact"] > 0.9
    assert seq2seq.transduce(tmp_path / "run", ["abcd", "ddab"]) == ["dcba", "badd"]
    assert result.made["attention"].exists()
    assert "(right)" in result.made["samples"].read_text()
    evaluated = seq2seq.evaluate(tmp_path / "run")
    assert evaluated["exact"] > 0.9

    # With the encoder's output replaced by that of another source, that one is written.
    _, model, vocabulary = TRAINING.open(tmp_path / "run")
    sources = torch.from_numpy(
        np.stack([vocabulary.tokenizer.encode(text) for text in ("abcd", "ddab")]).astype("int64")
    )
    special = seq2seq.Special.behind(vocabulary.tokenizer)
    begin = torch.full((2, 1), special.begin)
    own = model.conditioned(sources)
    swapped = model.select(own._state, torch.tensor([1, 0]))
    logits, _ = model.decode(begin, model.fresh(swapped))
    right, _ = model.decode(begin, own._model.fresh(own._state))
    assert torch.equal(logits.argmax(-1), right.argmax(-1).flip(0))


@pytest.mark.parametrize("model", MODELS)
def test_a_resumed_run_equals_one_that_never_stopped(
    model: str, data: Path, tmp_path: Path
) -> None:
    seq2seq.train(make_config(data, model), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoint" / "step-4")
    assert seq2seq.resume(tmp_path / "stopped").step == 4
    for name in ("metrics.jsonl", "samples.txt"):
        assert (tmp_path / "stopped" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert "exact" in read_metrics(tmp_path / "whole" / "metrics.jsonl")[-1]


def test_padding_is_no_target(data: Path) -> None:
    config = make_config(data)
    material = TRAINING.load(config, None)
    learner = TRAINING.build_learner(config, material.vocabulary, Processes("cpu"), new=True)
    task = material.task(config, Processes("cpu"))
    model = learner.model.eval()
    pairs = [(np.array([0, 1, 2]), np.array([2])), (np.array([3]), np.array([1, 2, 3, 0, 1]))]
    special = seq2seq.Special.behind(material.vocabulary.tokenizer)

    def summed(part: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, int]:
        sources, targets = zip(*part, strict=True)
        batch = make_pairs(list(sources), list(targets), special.begin, special.end)
        whole = pair_part_of(batch, slice(0, len(part)), torch.device("cpu"))
        return task.loss(model, whole, None)[0].item() * batch.predicted, batch.predicted

    together, alone = summed(pairs), [summed([pair]) for pair in pairs]
    assert together[1] == sum(count for _, count in alone)
    assert together[0] == pytest.approx(sum(loss for loss, _ in alone), rel=1e-5)


def test_the_loss_does_not_depend_on_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["ab" * (1 + number % 4) + "abcd"[number % 3] for number in range(200)]
    rows = [
        json.dumps({"source": f"{word}{number}", "target": word})
        for number, word in enumerate(words)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    config = make_config(tmp_path / "pairs.jsonl", "luong", most_tokens=16)
    material = TRAINING.load(config, None)
    learner = TRAINING.build_learner(config, material.vocabulary, Processes("cpu"), new=True)
    task, losses = material.task(config, Processes("cpu")), []
    for size in (1, 3, 16):
        monkeypatch.setattr(seq2seq, "_AT_A_TIME", size)
        losses.append(task.validate(learner.model)["validation_loss"])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def test_a_batch_read_in_parts_is_the_batch(tmp_path: Path) -> None:
    rows = [{"source": f"{n}", "target": "ab" * (1 + n % 7)} for n in range(100)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = []
    for parts in (1, 2, 8):
        config = make_config(tmp_path / "pairs.jsonl", "luong", most_tokens=16, accumulate=parts)
        seq2seq.train(config, tmp_path / f"{parts}")
        logged = read_metrics(tmp_path / f"{parts}" / "metrics.jsonl")
        found.append([(row["loss"], row["gradient_norm"]) for row in logged])
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=2e-5)


def test_all_pairs_are_measured_in_the_end(data: Path, tmp_path: Path) -> None:
    seq2seq.train(make_config(data, measured=2), tmp_path / "run")
    count = len(data.read_text().split("\n"))
    assert seq2seq.evaluate(tmp_path / "run")["pairs"] == round(0.1 * count)
    assert seq2seq.evaluate(tmp_path / "run", data)["pairs"] == count
    for beams in (-2, 0, 2_000_000):
        with pytest.raises(InputError, match=f"beams must be .*, got {beams}"):
            seq2seq.transduce(tmp_path / "run", ["abcd"], beams)


def test_noise_is_learnt_and_goes_on_to_pairs(data: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("abcd dcba abba dada. " * 40)
    noise = make_config(tmp_path / "text.txt", learns="denoising")
    result = seq2seq.train(noise, tmp_path / "noise")
    assert "_" in result.made["samples"].read_text()
    tuned = make_config(data, start=tmp_path / "noise")
    seq2seq.train(tuned, tmp_path / "pairs")
    assert (tmp_path / "pairs" / "tokenizer.json").read_text() == (
        tmp_path / "noise" / "tokenizer.json"
    ).read_text()
