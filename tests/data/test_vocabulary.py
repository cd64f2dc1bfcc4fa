"""Words of a text, their frequencies, and how many of them are read."""

from __future__ import annotations

import numpy as np
import pytest

from fusewire.data.vocabulary import Vocabulary, sentences
from fusewire.errors import InputError

TEXT = [["a", "b", "a"], ["c", "a"], ["b"]]


def test_paragraphs_are_sentences_wherever_pieces_end() -> None:
    text = "One two\nthree.\n\n  \nFour's 5 six_seven\n\n\n"
    expected = [["one", "two", "three"], ["four's", "six", "seven"]]
    for length in (1, 3, 7, 100):
        pieces = [text[start : start + length] for start in range(0, len(text), length)]
        assert list(sentences(pieces)) == expected


def test_the_most_frequent_come_first() -> None:
    vocabulary = Vocabulary.of(TEXT, least=1)
    assert vocabulary.words == ("a", "b", "c")
    assert vocabulary.counts.tolist() == [3, 2, 1]
    assert Vocabulary.of(TEXT, least=2).words == ("a", "b")
    with pytest.raises(InputError, match="1 words come at least 3 times"):
        Vocabulary.of(TEXT, least=3)


def test_unknown_words_and_empty_sentences_are_left_out() -> None:
    vocabulary = Vocabulary.of(TEXT, least=2)
    ids, ends = vocabulary.encode([["c"], ["a", "x", "b"], [], ["b"]])
    assert ids.tolist() == [0, 1, 1]
    assert ends.tolist() == [0, 2, 3]


def test_frequent_words_are_read_less_often() -> None:
    vocabulary = Vocabulary(("the", "rare"), np.array([9_999_000, 1000]))
    keep = vocabulary.keep(1e-3)
    assert keep[0] == pytest.approx((1e-3 / 0.9999) ** 0.5 + 1e-3 / 0.9999)
    assert keep[1] == 1.0
    assert vocabulary.keep(0.0).tolist() == [1.0, 1.0]
    assert vocabulary.noise()[1] == pytest.approx(1000**0.75)
