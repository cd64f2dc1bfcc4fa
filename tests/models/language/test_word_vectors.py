"""Vectors of words and of their parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusewire.errors import InputError
from fusewire.models.language import Subwords, WordVectors

WORDS = ["man", "woman", "king", "queen", "apple"]
TABLE = np.array([[1, 0, 0.1], [1, 1, 0.1], [2, 0, 3], [2, 1, 3], [-1, -1, 0.5]], dtype=np.float32)


@pytest.fixture
def vectors() -> WordVectors:
    return WordVectors(WORDS, TABLE)


def test_neighbours_are_ordered_and_without_the_word(vectors: WordVectors) -> None:
    neighbours = vectors.neighbours("king", count=10)
    assert neighbours[0][0] == "queen"
    assert len(neighbours) == 4
    assert "king" not in dict(neighbours)
    cosines = [cosine for _, cosine in neighbours]
    assert cosines == sorted(cosines, reverse=True)
    a, b = TABLE[2], TABLE[3]
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert cosines[0] == pytest.approx(vectors.similarity("king", "queen"))
    assert cosines[0] == pytest.approx(expected)


def test_analogies_are_solved(vectors: WordVectors) -> None:
    assert vectors.analogy("man", "king", "woman")[0][0] == "queen"
    questions = [
        ("man", "king", "woman", "queen"),
        ("man", "king", "woman", "apple"),
        ("man", "king", "woman", "princess"),
    ]
    assert vectors.solved(questions) == (0.5, 2)


def test_agreement_is_spearmans_correlation(vectors: WordVectors) -> None:
    judged = [("king", "queen", 9.0), ("man", "woman", 8.0), ("man", "apple", 1.0)]
    cosines = [vectors.similarity(a, b) for a, b, _ in judged]
    expected = 1.0 if cosines == sorted(cosines, reverse=True) else 0.5
    assert vectors.agreement([*judged, ("king", "unicorn", 5.0)]) == (pytest.approx(expected), 3)
    assert vectors.agreement([("king", "unicorn", 5.0)]) == (0.0, 0)


def test_equal_judgements_share_a_rank() -> None:
    from fusewire.models.language.word_vectors import _ranks

    assert _ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


def test_an_embedding_starts_from_known_words(vectors: WordVectors) -> None:
    embedding = vectors.embedding(["queen", " King", "zebra"], dim=5, seed=3)
    assert embedding.shape == (3, 5)
    for row, word in ((0, 3), (1, 2)):
        scale = embedding[row, 2] / TABLE[word, 2]
        np.testing.assert_allclose(embedding[row, :3], TABLE[word] * scale, rtol=1e-5)
    assert np.square(embedding).mean() == pytest.approx(1 / 5, rel=0.9)
    with pytest.raises(ValueError, match="at least that of the vectors, 3, got 2"):
        vectors.embedding(["queen"], dim=2)


def test_unknown_words_are_the_mean_of_their_parts(tmp_path: Path) -> None:
    subwords = Subwords(shortest=3, longest=4, buckets=50)
    parts = np.random.default_rng(0).random((50, 3), dtype=np.float32)
    vectors = WordVectors(WORDS, TABLE, subwords, parts)
    expected = parts[subwords.rows("kingdom")].mean(axis=0)
    np.testing.assert_allclose(vectors.vector("kingdom"), expected)
    assert "kingdom" not in vectors

    vectors.save(tmp_path / "words.safetensors")
    loaded = WordVectors.load(tmp_path / "words.safetensors")
    np.testing.assert_array_equal(loaded.vector("kingdom"), vectors.vector("kingdom"))
    assert loaded.words == WORDS


def test_unknown_words_without_parts_are_refused(vectors: WordVectors, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'unicorn' is not in the vocabulary"):
        vectors.neighbours("unicorn")
    (tmp_path / "nonsense").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="holds no word vectors"):
        WordVectors.load(tmp_path / "nonsense")
    with pytest.raises(InputError, match="cannot read"):
        WordVectors.load(tmp_path / "absent")


def test_parts_are_the_grams_between_the_marks() -> None:
    subwords = Subwords(shortest=3, longest=6, buckets=1000)
    parts = subwords.parts("where")
    assert parts[:5] == ["<wh", "whe", "her", "ere", "re>"]
    assert "<where" in parts
    assert "<where>" not in parts
    offsets, rows = subwords.table(["a", "where"])
    assert offsets.tolist() == [0, 1, 1 + 1 + len(parts)]
    assert rows[0] == 0
    assert rows[1] == 1
    assert (rows[2:] >= 2).all()
    # FNV-1a of 32 bits, whose value for "a" is published.
    from fusewire.models.language.subwords import _hash

    assert _hash("a") == 0xE40C292C
