"""Word vectors beside gensim's: the same text, the same settings, the same number of threads.

    python -m benches.training.word_vectors --text gcide.txt --out benches/record/word_vectors.json

The text is a large dictionary, Debian's dict-gcide, unpacked with
`zcat gcide.dict.dz | iconv -c -f windows-1252 -t utf-8`. gensim, which must be installed, brings
WordSim-353, SimLex-999 and the analogies.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import fusewire as fw
from benches.training.record import Record
from fusewire.data.judgements import load_analogies, load_judgements
from fusewire.data.token_files import TextPieces
from fusewire.data.vocabulary import Vocabulary, sentences
from fusewire.models.language import Subwords, WordVectors
from fusewire.ops.embeddings import WordTables

DIM, WINDOW, NEGATIVES, SAMPLE, LEAST = 100, 5, 5, 1e-3, 5
FIRST_RATE, LAST_RATE = 0.025, 0.0001


def ours(
    text: list[list[str]], objective: str, epochs: int, threads: int, subwords: Subwords | None
) -> tuple[WordVectors, float]:
    fw.set_num_threads(threads)
    vocabulary = Vocabulary.of(text, LEAST)
    words, ends = vocabulary.encode(text)
    random = np.random.default_rng(1)
    rows = len(vocabulary.words) + (subwords.buckets if subwords else 0)
    table = (random.random((rows, DIM), np.float32) - 0.5) / DIM
    parts = subwords.table(list(vocabulary.words)) if subwords else None
    zeros = np.zeros((len(vocabulary.words), DIM), np.float32)
    tables = WordTables(table, zeros, vocabulary.keep(SAMPLE), vocabulary.noise(), parts)
    started = time.perf_counter()
    for epoch in range(epochs):
        rates = [
            FIRST_RATE + (LAST_RATE - FIRST_RATE) * place / epochs for place in (epoch, epoch + 1)
        ]
        tables.train(
            words,
            ends,
            objective,  # type: ignore[arg-type]
            window=WINDOW,
            negatives=NEGATIVES,
            learning_rates=(rates[0], rates[1]),
            seed=epoch,
        )
    seconds = time.perf_counter() - started
    learnt = tables.input()
    if parts is not None:
        offsets, places = parts
        learnt = np.add.reduceat(learnt[places], offsets[:-1]) / np.diff(offsets)[:, None]
    vectors = learnt[: len(vocabulary.words)].astype(np.float32)
    return WordVectors(vocabulary.words, vectors), epochs * len(words) / seconds


def gensims(
    text: list[list[str]], objective: str, epochs: int, threads: int, subwords: Subwords | None
) -> tuple[WordVectors, float]:
    from gensim.models import FastText, Word2Vec

    options: dict[str, Any] = {
        "vector_size": DIM,
        "window": WINDOW,
        "negative": NEGATIVES,
        "sample": SAMPLE,
        "min_count": LEAST,
        "alpha": FIRST_RATE,
        "min_alpha": LAST_RATE,
        "sg": int(objective == "skip-gram"),
        "workers": threads,
        "seed": 1,
    }
    if subwords:
        options |= {"min_n": subwords.shortest, "max_n": subwords.longest}
        options["bucket"] = subwords.buckets
    model = (FastText if subwords else Word2Vec)(**options)
    model.build_vocab(text)
    started = time.perf_counter()
    model.train(text, total_examples=model.corpus_count, epochs=epochs)
    seconds = time.perf_counter() - started
    words = epochs * model.corpus_total_words
    return WordVectors(model.wv.index_to_key, model.wv.vectors), words / seconds


def measure(vectors: WordVectors, speed: float, data: Path) -> dict[str, Any]:
    wordsim = vectors.agreement(load_judgements(data / "wordsim353.tsv"))
    simlex = vectors.agreement(load_judgements(data / "simlex999.txt"))
    analogies = vectors.solved(load_analogies(data / "questions-words.txt"))
    return {
        "words_per_second": speed,
        "wordsim353": wordsim,
        "simlex999": simlex,
        "analogies": analogies,
    }


def main() -> None:
    import gensim

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benches/record/word_vectors.json"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sentences", type=int, help="read only so many, to try it out")
    arguments = parser.parse_args()
    record = Record(arguments.out)
    text = list(sentences(TextPieces(arguments.text)))[: arguments.sentences]
    data = Path(gensim.__file__).parent / "test" / "test_data"
    for objective in ("skip-gram", "cbow"):
        for subwords in (None, Subwords(buckets=200_000)):
            for threads in arguments.threads:
                for who, learn in (("ours", ours), ("gensim", gensims)):
                    kind = f"{objective}{' with subwords' if subwords else ''}"
                    record.once(
                        f"{kind}, {threads} threads, {arguments.epochs} epochs, {who}",
                        lambda learn=learn, objective=objective, threads=threads, parts=subwords: (
                            measure(*learn(text, objective, arguments.epochs, threads, parts), data)
                        ),
                    )


if __name__ == "__main__":
    main()
