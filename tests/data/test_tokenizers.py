"""Tokenizers give back the text they were given, also after a journey through JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusewire.data.tokenizers import (
    ByteTokenizer,
    CharacterTokenizer,
    load_tokenizer,
    make_tokenizer,
    tokenizer_from_json,
)
from fusewire.errors import InputError

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


@pytest.mark.parametrize("kind", ["bytes", "characters"])
@given(text=texts)
def test_any_text_comes_back(kind: str, text: str) -> None:
    tokenizer = make_tokenizer(kind, [text])
    tokens = tokenizer.encode(text)
    assert tokens.max() < tokenizer.vocab_size
    again = tokenizer_from_json(tokenizer.to_json())
    np.testing.assert_array_equal(again.encode(text), tokens)
    assert again.decode(tokens) == text


@given(text=texts)
def test_bytes_are_those_of_utf8(text: str) -> None:
    assert ByteTokenizer().encode(text).tolist() == list(text.encode())


def test_broken_bytes_are_shown_as_such() -> None:
    assert ByteTokenizer().decode(np.array([72, 255, 105])) == "H\ufffdi"


def test_characters_unknown_to_the_vocabulary_are_named() -> None:
    tokenizer = CharacterTokenizer.of_text("hello world")
    with pytest.raises(InputError, match="unknown to this model: 'zé'"):
        tokenizer.encode("hezllé")
    assert tokenizer.encode("").tolist() == []


def test_more_than_256_characters_fit() -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 1000)))
    tokenizer = CharacterTokenizer.of_text(text)
    assert tokenizer.vocab_size == 1000
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("vocabulary", ["", "aba"])
def test_a_vocabulary_names_each_character_once(vocabulary: str) -> None:
    with pytest.raises(ValueError, match="at least one character and each only once"):
        CharacterTokenizer(vocabulary)


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b'{"kind": "words"}', b'{"kind": "characters"}', b"\xff"]
)
def test_a_damaged_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read the tokenizer"):
        load_tokenizer(path)
