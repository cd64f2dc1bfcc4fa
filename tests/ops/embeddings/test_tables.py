"""Word tables as Python sees them: one step by hand, what is learnt, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import fusewire as fw
from fusewire.ops.embeddings import WordTables


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def make(words: int = 2, dim: int = 5) -> WordTables:
    random = np.random.default_rng(0)
    tables = [random.standard_normal((words, dim), np.float32) for _ in range(2)]
    return WordTables(*tables, np.ones(words), np.array([0.0, 1.0] + [1.0] * (words - 2)))


@pytest.mark.parametrize("objective", ["skip-gram", "cbow"])
def test_one_window_moves_as_the_formula_says(objective: str) -> None:
    tables = make()
    before_input, before_output = tables.input(), tables.output()
    # Two windows: 1 around the centre 0, with 1 drawn; and 0 around the centre 1, with 1 not drawn
    # because it is the centre.
    rate, loss = 0.5, 0.0
    contexts, outputs = before_input.astype(np.float64), before_output.astype(np.float64)
    for context, centre, drawn in [(1, 0, [1]), (0, 1, [])]:
        hidden, slope = contexts[context].copy(), np.zeros(5)
        for place, word in enumerate([centre, *drawn]):
            label = float(place == 0)
            probability = sigmoid(before_input[context] @ before_output[word])
            loss -= np.log(probability if label else 1 - probability)
            slope += rate * (label - probability) * outputs[word]
            outputs[word] += rate * (label - probability) * hidden
        contexts[context] += slope
    measured = tables.train(
        np.array([0, 1]), None, objective, window=1, negatives=1, learning_rates=(rate, rate)
    )
    assert measured == pytest.approx(loss / 3, rel=1e-5)
    np.testing.assert_allclose(tables.input(), contexts, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tables.output(), outputs, rtol=1e-5, atol=1e-6)


def test_words_of_one_sentence_come_together() -> None:
    random = np.random.default_rng(1)
    # Two topics of five words each, never in one sentence.
    sentences = [topic * 5 + random.integers(0, 5, 20) for topic in [0, 1] * 200]
    words, ends = np.concatenate(sentences), np.arange(0, 20 * 400 + 1, 20)
    start = (random.random((10, 16), np.float32) - 0.5) / 16
    tables = WordTables(start, np.zeros_like(start), np.ones(10), np.ones(10))
    for seed in range(5):
        tables.train(words, ends, learning_rates=(0.05, 0.05), seed=seed)
    vectors = tables.input() / np.linalg.norm(tables.input(), axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    assert cosines[:5, :5].min() > cosines[:5, 5:].max() + 0.3


def test_threads_change_no_bit() -> None:
    words = np.random.default_rng(2).integers(0, 50, 5000)
    before = fw.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            fw.set_num_threads(threads)
            tables = make(50, 40)
            tables.train(words, learning_rates=(0.05, 0.01), seed=3)
            results.append(tables.input())
    finally:
        fw.set_num_threads(before)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_nonsense_is_refused() -> None:
    tables = make()
    with pytest.raises(ValueError, match="words must be from 0 to 1, but one is 2"):
        tables.train(np.array([0, 2]))
    with pytest.raises(ValueError, match="objective must be 'skip-gram' or 'cbow', but is 'glove'"):
        tables.train(np.array([0, 1]), None, "glove")
    with pytest.raises(TypeError, match="words must be int64, but is float32"):
        tables.train(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="output must have shape"):
        WordTables(
            np.zeros((3, 4), np.float32), np.zeros((3, 5), np.float32), np.ones(3), np.ones(3)
        )
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(tables)
