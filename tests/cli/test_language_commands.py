"""Commands for encoders, classifiers, encoder-decoders and word vectors."""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fusewire.cli import main

TEXT = "It was the best of times, it was the worst of times.\n\n" * 40
QUICK = ["--steps", "3", "--batch", "2"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    rows = [
        {"text": f"film {n} {word}", "label": word} for word in ("good", "bad") for n in range(9)
    ]
    (tmp_path / "films.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = [{"source": f"{n}", "target": f"<{n}>"} for n in range(20)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return tmp_path


def numbers(capfd: pytest.CaptureFixture[str]) -> dict[str, float]:
    found = re.findall(r"^(\w+) +(-?[\d.]+)$", capfd.readouterr().out, re.M)
    return {name: float(value) for name, value in found}


def test_an_encoder_is_trained_and_a_classifier_starts_from_it(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lm = ["train", "lm", "--data", "text.txt", "--model", "encoder", "--context", "16", *QUICK]
    assert main(lm) == 0
    start = ["--start", "runs/encoder-1", "--tuning", "lora"]
    assert main(["train", "classifier", "--data", "films.jsonl", *start, *QUICK]) == 0
    assert (folder / "runs" / "classifier-1" / "confusion.png").exists()
    capfd.readouterr()
    measured = []
    for batch in ("1", "50"):
        assert main(["evaluate", "runs/classifier-1", "--batch", batch]) == 0
        measured.append(numbers(capfd))
    assert measured[0] == measured[1]
    assert 0.0 <= measured[0]["accuracy"] <= 1.0
    assert main(["resume", "runs/classifier-1", "--steps", "5"]) == 0


def test_a_language_model_is_measured_whatever_the_batch(
    capfd: pytest.CaptureFixture[str],
) -> None:
    lm = ["train", "lm", "--data", "text.txt", "--model", "gru", "--context", "16", *QUICK]
    assert main(lm) == 0
    capfd.readouterr()
    measured = []
    for batch in ("1", "32"):
        assert main(["evaluate", "runs/gru-1", "--data", "text.txt", "--batch", batch]) == 0
        measured.append(numbers(capfd))
    assert measured[0] == pytest.approx(measured[1], abs=1e-3)
    loss = measured[0]["loss"]
    assert measured[0]["perplexity"] == pytest.approx(math.exp(loss), rel=1e-3)
    assert measured[0]["bits_per_byte"] == pytest.approx(loss / math.log(2), rel=2e-3)


@pytest.mark.parametrize("model", ["transformer", "encoder", "gru"])
def test_documents_are_packed(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    lm = ["train", "lm", "--data", "text.txt", "--model", model, "--context", "16"]
    assert main([*lm, "--documents", "paragraphs", *QUICK]) == 0
    assert main(["evaluate", f"runs/{model}-1"]) == 0
    assert 4.0 < numbers(capfd)["loss"] < 6.0
    start = ["train", "classifier", "--data", "films.jsonl", "--start", f"runs/{model}-1"]
    assert main([*start, "--packed", *QUICK]) == 0
    bag = ["train", "classifier", "--data", "films.jsonl", "--model", "bag", *QUICK]
    assert main(bag) == 0
    for option, refusal in (
        (["--tuning", "lora"], "--tuning must be full, frozen or gradual for a bag of words"),
        (["--layers", "2"], "--layers and --heads are for networks, not for a bag of words"),
    ):
        assert main([*bag, *option]) == 2
        assert refusal in capfd.readouterr().err
    assert main([*lm, "--documents", "files", *QUICK]) == 2
    assert "has 1 files, and at least two are needed" in capfd.readouterr().err


def test_sizes_are_asked_for_of_new_networks_only(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--layers", "1", "--width", "24", "--dropout", "0.2"]
    for model, more in (("transformer", ["--heads", "3"]), ("lstm", [])):
        lm = ["train", "lm", "--data", "text.txt", "--model", model, "--context", "16", *QUICK]
        assert main([*lm, *sizes, *more]) == 0
        made = json.loads((folder / "runs" / f"{model}-1" / "config.json").read_text())
        network = made["config"]["model"]
        assert (network["layers"], network["embed_dim"], network["dropout"]) == (1, 24, 0.2)
    for wrong, said in [
        (["--model", "lstm", "--heads", "2"], "--heads is for Transformers"),
        (["--start", "runs/lstm-1", "--width", "32"], "--width is for new networks"),
        (["--start", "runs/lstm-1", "--tokenizer", "words"], "--tokenizer is for new networks"),
        (["--start", "runs/lstm-1", "--embedding", "v"], "--embedding is for new networks; leave"),
        (["--heads", "5"], "--width must be a multiple of --heads, got "),
        (["--model", "mamba"], "Expected one of encoder, gru, lstm, relu, rnn, transformer. For"),
    ]:
        assert main(["train", "lm", "--data", "text.txt", "--context", "16", *QUICK, *wrong]) == 2
        assert said in capfd.readouterr().err


def config_of(run: str) -> dict[str, Any]:
    return json.loads((Path("runs") / run / "config.json").read_text())["config"]


def test_a_run_goes_on_as_what_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    lm = ["train", "lm", "--data", "text.txt", *QUICK]
    sizes = ["--layers", "1", "--width", "8"]
    assert main([*lm, *sizes, "--model", "transformer", "--heads", "2", "--context", "32"]) == 0
    assert main([*lm, *sizes, "--model", "gru", "--context", "150"]) == 0
    assert main([*lm, *sizes, "--model", "encoder", "--heads", "2", "--context", "16"]) == 0
    for run, context in (("transformer", 32), ("gru", 150), ("encoder", 16)):
        assert main([*lm, "--start", f"runs/{run}-1"]) == 0
        assert config_of(f"{run}-2")["context"] == context
    assert main([*lm, "--start", "runs/transformer-1", "--context", "9"]) == 0
    assert config_of("transformer-3")["context"] == 9
    films = ["train", "classifier", "--data", "films.jsonl", *QUICK]
    assert main([*films, "--start", "runs/encoder-1"]) == 0
    assert config_of("classifier-1")["most_tokens"] == 16
    pairs = ["train", "seq2seq", "--data", "pairs.jsonl", *QUICK]
    assert main([*pairs, "--model", "luong", "--most-tokens", "8"]) == 0
    assert main([*pairs, "--start", "runs/seq2seq-1"]) == 0
    assert config_of("seq2seq-2")["most_tokens"] == 8
    capfd.readouterr()
    for command, said in [
        ([*lm, "--start", "runs/gru-1", "--model", "lstm"], "--model must be that of "),
        ([*lm, "--start", "runs/gru-1", "--model", "encoder"], "from which this cannot start"),
        (
            [*lm, "--start", "runs/transformer-1", "--context", "33"],
            "--context must be at most the model's, 32, got 33",
        ),
        ([*films, "--start", "runs/gru-1", "--model", "bag"], 'gru-1, "gru", got "bag"; leave it'),
        (
            [*films, "--start", "runs/gru-1", "--embedding", "vectors.safetensors"],
            "--embedding is for new networks; leave it out with --start",
        ),
        (
            [*films, "--start", "runs/encoder-1", "--most-tokens", "17"],
            "--most-tokens must be at most the model's context, 16, got 17",
        ),
        ([*pairs, "--start", "runs/seq2seq-1", "--model", "bahdanau"], "--model must be that of "),
        (
            [*pairs, "--start", "runs/seq2seq-1", "--tokenizer", "bpe"],
            "--tokenizer is for new networks; leave it out with --start",
        ),
    ]:
        assert main(command) == 2
        assert said in capfd.readouterr().err


def test_a_vocabulary_that_is_not_learnt_has_no_size(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenize", "text.txt", "it.tokens", "--tokenizer", "words"]) == 0
    films = ["train", "classifier", "--data", "films.jsonl"]
    for command, said in [
        (
            ["train", "lm", "--data", "text.txt", "--vocab-size", "99"],
            "not for bytes; leave it out",
        ),
        (
            [*films, "--tokenizer", "characters", "--vocab-size", "99"],
            "not for characters; leave it out",
        ),
        (["train", "seq2seq", "--data", "pairs.jsonl", "--vocab-size", "9"], "not for bytes"),
        (["tokenize", "text.txt", "other.tokens", "--vocab-size", "9"], "not for bytes"),
        (["train", "lm", "--data", "it.tokens", "--tokenizer", "bpe"], "brings its tokenizer"),
    ]:
        assert main(command) == 2
        assert said in capfd.readouterr().err
    assert not Path("other.tokens").exists()


@pytest.mark.parametrize("kind", ["words", "bpe", "unigram"])
def test_bytes_count_where_tokens_give_the_text_back(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    lm = ["train", "lm", "--data", "text.txt", "--model", "gru", "--context", "8", *QUICK]
    sizes = ["--layers", "1", "--width", "8", "--vocab-size", "270"]
    assert main([*lm, *sizes, "--tokenizer", kind, "--documents", "paragraphs"]) == 0
    capfd.readouterr()
    assert main(["evaluate", "runs/gru-1", "--data", "text.txt"]) == 0
    found = numbers(capfd)
    if kind == "words":
        assert "bits_per_byte" not in found
    else:
        # A document has an end of a line before and behind it; its first token is not predicted.
        size = 40 * len("\nIt was the best of times, it was the worst of times.\n")
        bits = found["loss"] / math.log(2) * (found["tokens"] - 40)
        assert found["bits_per_byte"] == pytest.approx(bits / size, abs=1e-4)


def test_a_terminal_gets_no_commands_from_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("codes.txt").write_bytes(bytes([27, *b"[2J", 7, 127, 0xC2, 0x9B, 10, 9]) * 200)
    lm = ["train", "lm", "--data", "codes.txt", "--context", "16", "--steps", "1", "--batch", "2"]
    assert main([*lm, "--tokenizer", "characters"]) == 0
    sample = ["sample", "runs/transformer-1", "--length", "300", "--seed", "1"]
    ours, terminal = os.openpty()
    with os.fdopen(terminal, "w", encoding="utf-8") as there:
        monkeypatch.setattr("sys.stdout", there)
        assert main(sample) == 0
        written = b""
        while not written.endswith(b"\n") or len(written) < 300:
            written += os.read(ours, 1 << 16)
    os.close(ours)
    shown = written.decode().replace("\r\n", "\n")
    assert {"\u241b", "\u2407", "\u2421", "\ufffd"} <= set(shown)
    assert not {c for c in shown if unicodedata.category(c) == "Cc"} - {"\n", "\t", " "}
    monkeypatch.undo()


def test_text_is_drawn_in_every_way(capfd: pytest.CaptureFixture[str]) -> None:
    lm = ["train", "lm", "--data", "text.txt", "--model", "transformer", "--context", "16", *QUICK]
    assert main(lm) == 0
    assert main([*lm, "--start", "runs/transformer-1"]) == 0
    for options in (
        ["--top-p", "0.9", "--min-p", "0.01", "--repetition-penalty", "1.2"],
        ["--beams", "3"],
        ["--stop", "e", "t"],
        ["--count", "3", "--out", "texts.txt"],
    ):
        command = ["sample", "runs/transformer-2", "--prompt", "It was", "--length", "9"]
        assert main([*command, *options]) == 0
    assert Path("texts.txt").read_text().startswith("It was")
    capfd.readouterr()
    beams = ["sample", "runs/transformer-2", "--prompt", "It", "--length", "5", "--beams", "4"]
    assert main([*beams, "--count", "2"]) == 0
    first, second = capfd.readouterr().out.split("-" * 72)
    assert first.strip() != second.strip()
    assert main([*beams, "--count", "5"]) == 2
    assert "count must be at most the number of beams, 4, got 5" in capfd.readouterr().err
    assert main(["sample", "runs/transformer-1", "--top-p", "0"]) == 2
    assert "top_p must be above 0 and at most 1, got 0.0" in capfd.readouterr().err


@pytest.mark.parametrize("model", ["transformer", "luong", "bahdanau"])
def test_an_encoder_decoder_is_trained_and_asked(
    model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", "pairs.jsonl", "--most-tokens", "8"]
    assert main(["train", "seq2seq", *data, "--model", model, *QUICK]) == 0
    capfd.readouterr()
    assert main(["sample", "runs/seq2seq-1", "--prompt", "12"]) == 0
    assert main(["evaluate", "runs/seq2seq-1"]) == 0
    assert "exact" in capfd.readouterr().out
    assert main(["sample", "runs/seq2seq-1", "--prompt", "12", "--top-k", "3"]) == 2
    assert "--top-k is for language models" in capfd.readouterr().err
    for beams, said in (("0", "at least 1"), ("-2", "at least 1"), ("2000000", "at most 1024")):
        assert main(["sample", "runs/seq2seq-1", "--prompt", "12", "--beams", beams]) == 2
        assert f"beams must be {said}, got {beams}" in capfd.readouterr().err


def test_word_vectors_are_trained_asked_and_measured(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--dim", "8", "--epochs", "1", "--least-count", "2"]
    assert main(["train", "embeddings", "--data", "text.txt", *options, "--subwords"]) == 0
    capfd.readouterr()
    assert main(["neighbours", "runs/embeddings-1", "best", "--count", "3"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 3
    assert main(["neighbours", "runs/embeddings-1", "best", "worst", "was"]) == 0
    (folder / "pairs.tsv").write_text("best\tworst\t9.0\nit\tof\t2.0\nbest\tit\t1\n")
    (folder / "questions.txt").write_text(": title\nbest worst it was\n")
    capfd.readouterr()
    held = ["--data", "pairs.tsv", "--analogies", "questions.txt"]
    assert main(["evaluate", "runs/embeddings-1", *held]) == 0
    measured = numbers(capfd)
    assert measured["pairs_known"] == 3
    assert measured["analogies_known"] == 1
    assert main(["neighbours", "runs/embeddings-1", "a", "b"]) == 2
    assert "one word, or three" in capfd.readouterr().err
    assert main(["evaluate", "runs/embeddings-1"]) == 2
    assert "give --data with word pairs" in capfd.readouterr().err
    assert main(["sample", "runs/embeddings-1"]) == 2
    assert "makes no samples" in capfd.readouterr().err
    for option in ("batch", "count", "seed"):
        assert main(["evaluate", "runs/embeddings-1", *held, f"--{option}", "3"]) == 2
        assert f"--{option} is for " in capfd.readouterr().err
