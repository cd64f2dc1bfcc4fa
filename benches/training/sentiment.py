"""Sentiment of film reviews with few labels: what pre-training is worth.

    FUSEWIRE_DATA=... python -m benches.training.sentiment --vectors RUN --language RUN --out FILE

Random start, word-vector start and pre-trained start at 1, 10 and 100 % of the labels of
rt-polarity, beside logistic regression on TF-IDF (scikit-learn, which must be installed). The
pre-trained runs are made by `fusewire train embeddings` and `fusewire train lm`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from benches.training.record import Record
from fusewire.data.folder import data_folder
from fusewire.data.labelled import load_labelled
from fusewire.recipes import language
from fusewire.training.sequence import classifier

SHARES = (0.01, 0.1, 1.0)


def reviews(folder: Path) -> Path:
    """All reviews as one file of JSON objects, made once."""
    path = folder / "rt-polarity.jsonl"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for file in sorted(data_folder("rt-polarity").iterdir()):
            if file.suffix in (".neg", ".pos"):
                for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                    rows.append(json.dumps({"text": line.strip(), "label": file.suffix[1:]}))
        path.write_text("\n".join(rows) + "\n")
    return path


def baseline(data: Path, share: float) -> dict[str, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    found = load_labelled(data, labels=share)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    seen = vectorizer.fit_transform([text for text, _ in found.train])
    model = LogisticRegression(C=10, max_iter=1000).fit(seen, [label for _, label in found.train])
    kept = vectorizer.transform([text for text, _ in found.validation])
    return {"accuracy": float(model.score(kept, [label for _, label in found.validation]))}


def train(data: Path, share: float, steps: int, out: Path, **start: Any) -> dict[str, Any]:
    pretrained = start.pop("language", None)
    config = language.classifier(data, "lstm", most_tokens=64, start=pretrained)
    changes = {"labels": share, "steps": steps, "validate_every": steps, "save_every": steps}
    if pretrained is None:
        changes |= {"tokenizer": "words", "vocab_size": 20_000}
    else:
        changes |= {"tuning": "gradual", "unfreeze_every": max(1, steps // 8)}
    config = dataclasses.replace(config, **changes, **start)
    unfinished = (out / "config.json").exists()
    result = classifier.resume(out) if unfinished else classifier.train(config, out)
    return {name: result.metrics[f"validation_{name}"] for name in ("accuracy", "macro_f1")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benches/record/sentiment.json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/sentiment"))
    parser.add_argument("--vectors", type=Path, help="a run of train embeddings")
    parser.add_argument("--language", type=Path, help="a run of train lm")
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    record = Record(arguments.out)
    data = reviews(arguments.runs)
    arms: dict[str, dict[str, Any]] = {"random start": {}}
    if arguments.vectors:
        arms["word-vector start"] = {"embedding": arguments.vectors.absolute()}
    if arguments.language:
        arms["pre-trained start"] = {"language": arguments.language.absolute()}
    for share in SHARES:
        percent = f"{share:.0%} of the labels"
        record.once(f"TF-IDF, {percent}", lambda share=share: baseline(data, share))
        for name, start in arms.items():
            out = arguments.runs / f"{name.replace(' ', '-')}-{share}"
            record.once(
                f"{name}, {percent}, {arguments.steps} steps",
                lambda share=share, out=out, start=start: train(
                    data, share, arguments.steps, out, **start
                ),
            )


if __name__ == "__main__":
    main()
