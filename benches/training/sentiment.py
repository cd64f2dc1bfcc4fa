"""Sentiment of film reviews with few labels: what pre-training is worth.

    FUSEWIRE_DATA=... python -m benches.training.sentiment --text gcide.txt --out FILE

Random start, word-vector start and pre-trained language-model start at 1, 10 and 100 % of the
labels of rt-polarity, beside logistic regression on TF-IDF (scikit-learn, which must be installed).
Two readers: an LSTM, and the mean of the words' vectors, which learn or are frozen. The word
vectors learn from a large dictionary (see `word_vectors`) and the reviews that are not measured on,
without their labels; the language model starts from them and learns those reviews. Each arm is
trained from several seeds; "together" is the accuracy of the mean of their probabilities,
"above_baseline" the mean difference to TF-IDF on the same texts and its standard error over texts.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benches.training.record import Record, whole
from fusewire.data.folder import data_folder
from fusewire.data.labelled import load_labelled
from fusewire.models.language import BagConfig, RecurrentConfig
from fusewire.recipes import language
from fusewire.training import embeddings
from fusewire.training.sequence import classifier
from fusewire.training.sequence.config import LanguageConfig
from fusewire.training.sequence.language import TRAINING

STEPS = {0.01: 150, 0.1: 400, 1.0: 1200}
"""Optimiser steps of a classifier by the share of the labels."""

WIDTH = 128
LSTM = RecurrentConfig("lstm", layers=1, embed_dim=WIDTH, hidden_size=WIDTH, dropout=0.4)
BAG = BagConfig(WIDTH)
FASTER = {LSTM: 1.0, BAG: 2.5}
"""How many times as many steps a reader makes; those of a bag are a tenth as long."""
VOCABULARY = 16_384
COPIES = 8  # of the reviews beside the dictionary, which is 36 times as long


def reviews(folder: Path) -> str:
    """The texts to learn from, without labels, a paragraph each."""
    return "\n\n".join(load_labelled(folder).texts) + "\n\n"


def vectors(folder: Path, text: Path, runs: Path) -> Path:
    """Word vectors of the dictionary and the reviews."""
    out = runs / "vectors"
    if not (out / embeddings.VECTORS).exists():
        both = runs / "both.txt"
        both.write_text(text.read_text("utf-8") + "\n\n" + COPIES * reviews(folder), "utf-8")
        config = embeddings.EmbeddingsConfig(
            data=both, dim=WIDTH, window=8, least_count=3, epochs=3, save_every=1000
        )
        unfinished = (out / "config.json").exists()
        whole(embeddings.resume(out) if unfinished else embeddings.train(config, out))
    return out.absolute()


def pretrained(folder: Path, start: Path, runs: Path, steps: int) -> Path:
    """A language model of the reviews, started from the vectors."""
    out = runs / "language"
    if not (out / "samples.txt").exists():
        text = runs / "reviews.txt"
        text.write_text(reviews(folder), "utf-8")
        config = LanguageConfig(
            model=LSTM,
            data=text.absolute(),
            tokenizer="words",
            vocab_size=VOCABULARY,
            embedding=start,
            context=32,
            batch=32,
            steps=steps,
            learning_rate=3e-3,
            weight_decay=0.01,
            validate_every=steps,
            save_every=steps,
        )
        unfinished = (out / "config.json").exists()
        whole(TRAINING.resume(out) if unfinished else TRAINING.train(config, out))
    return out.absolute()


@functools.cache
def _baseline(folder: Path, share: float) -> torch.Tensor:
    """Whether each text that is measured on is taken for what it is."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    found = load_labelled(folder, labels=share)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    seen = vectorizer.fit_transform([text for text, _ in found.train])
    model = LogisticRegression(C=10, max_iter=1000).fit(seen, [label for _, label in found.train])
    kept = vectorizer.transform([text for text, _ in found.validation])
    labels = torch.tensor([label for _, label in found.validation])
    return (torch.from_numpy(model.predict(kept)) == labels).float()


def baseline(folder: Path, share: float) -> dict[str, Any]:
    return {"accuracy": _baseline(folder, share).mean().item()}


def train(
    folder: Path,
    share: float,
    seeds: int,
    out: Path,
    model: BagConfig | RecurrentConfig,
    rate: float,
    **start: Any,
) -> dict[str, Any]:
    steps = int(STEPS[share] * FASTER[model])
    config = dataclasses.replace(
        language.classifier(folder, "lstm", most_tokens=64),
        model=model,
        tokenizer="words",
        vocab_size=VOCABULARY,
        labels=share,
        steps=steps,
        dropout=0.4,
        packed=True,
        learning_rate=rate,
        weight_decay=0.01,
        validate_every=steps,
        save_every=steps,
        threads=1,
        **start,
    )
    likely = []
    for seed in range(seeds):
        path = out.with_name(f"{out.name}-{seed}")
        if not (path / "evaluation.json").exists():
            seeded = dataclasses.replace(config, seed=seed)
            unfinished = (path / "config.json").exists()
            whole(classifier.resume(path) if unfinished else classifier.train(seeded, path))
        probabilities, labels = _probabilities(path)
        likely.append(probabilities)
    right = (torch.stack(likely).argmax(-1) == labels).float()
    accuracies = right.mean(1)
    above = right.mean(0) - _baseline(folder, share)
    together = torch.stack(likely).mean(0).argmax(-1) == labels
    return {
        "accuracy": accuracies.mean().item(),
        "deviation": accuracies.std().item() if seeds > 1 else None,
        "seeds": accuracies.tolist(),
        "together": together.float().mean().item(),
        "above_baseline": [above.mean().item(), above.std().item() / len(above) ** 0.5],
    }


def _probabilities(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    config, model, vocabulary = classifier.TRAINING.open(path)
    kept = load_labelled(config.data, config.validation).validation
    texts = classifier.encode(kept, vocabulary.tokenizer, config.most_tokens)
    logits, labels = classifier.predict(model, texts, torch.device("cpu"), 64)
    return logits.softmax(-1), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benches/record/sentiment.json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/sentiment"))
    parser.add_argument("--text", type=Path, required=True, help="the dictionary, unpacked")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--readers", nargs="+", default=["bag", "LSTM"], choices=["bag", "LSTM"])
    parser.add_argument("--language-steps", type=int, default=300)
    arguments = parser.parse_args()
    folder, runs = data_folder("rt-polarity"), arguments.runs
    runs.mkdir(parents=True, exist_ok=True)
    learnt = vectors(folder, arguments.text, runs)
    starts: dict[str, Callable[[], dict[str, Any]]] = {
        "random start": dict,
        "word-vector start": lambda: {"embedding": learnt},
        "language-model start": lambda: {
            "start": pretrained(folder, learnt, runs, arguments.language_steps)
        },
        "frozen word vectors": lambda: {"embedding": learnt, "tuning": "frozen"},
    }
    readers: dict[str, tuple[BagConfig | RecurrentConfig, float, list[str]]] = {
        "bag": (BAG, 1e-2, ["random start", "word-vector start", "frozen word vectors"]),
        "LSTM": (LSTM, 2e-3, ["random start", "word-vector start", "language-model start"]),
    }
    record = Record(arguments.out)
    for share in arguments.shares:
        percent = f"{share:.0%} of the labels"
        record.once(f"TF-IDF, {percent}", lambda share=share: baseline(folder, share))
        for reader in arguments.readers:
            model, rate, names = readers[reader]
            for name in names:
                out = runs / f"{reader}-{name.replace(' ', '-')}-{share}"
                record.once(
                    f"{reader}, {name}, {percent}",
                    lambda share=share, out=out, model=model, rate=rate, name=name: train(
                        folder, share, arguments.seeds, out, model, rate, **starts[name]()
                    ),
                )


if __name__ == "__main__":
    main()
