"""Tokenizers that are learnt: what they give back, and where words begin."""

from __future__ import annotations

import json

import pytest

from fusewire.data.tokenizers import make_tokenizer, tokenizer_from_json
from fusewire.errors import InputError

TEXT = "the lowest of the low, the newest of the new.\nThe end is near the end.\n" * 20
KINDS = ["words", "bpe", "wordpiece", "unigram"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_learnt_tokenizer_survives_json(kind: str) -> None:
    tokenizer = make_tokenizer(kind, [TEXT], vocab_size=300)
    ids = tokenizer.encode("the newest low")
    assert tokenizer.decode(ids) == "the newest low"
    assert int(ids.max()) < tokenizer.vocab_size <= 300
    again = tokenizer_from_json(tokenizer.to_json())
    assert again.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()
    assert again.vocab_size == tokenizer.vocab_size


def test_bpe_gives_any_text_back() -> None:
    tokenizer = make_tokenizer("bpe", [TEXT], vocab_size=280)
    for text in ("Grüße, 世界!\n\n  tabs\tand  spaces ", "\x00\x7f", ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", ["words", "wordpiece", "unigram"])
def test_what_is_unknown_has_a_token(kind: str) -> None:
    tokenizer = make_tokenizer(kind, [TEXT], vocab_size=60)
    assert len(tokenizer.encode("世")) >= 1


@pytest.mark.parametrize("kind", ["bytes", "characters", *KINDS])
def test_words_begin_where_they_begin(kind: str) -> None:
    tokenizer = make_tokenizer(kind, [TEXT], vocab_size=270)
    ids = tokenizer.encode("the lowest of the new")
    begins = tokenizer.begins_word()
    assert begins.shape == (tokenizer.vocab_size,)
    # The first word of a text need not have a space before it.
    assert 1 + int(begins[ids][1:].sum()) == 5


def test_damage_and_small_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match="expected what tokenizers writes"):
        tokenizer_from_json('{"kind": "bpe", "learnt": {"model": 3}}')
    with pytest.raises(InputError, match="vocab_size must be at least 256 for bpe, got 100"):
        make_tokenizer("bpe", [TEXT], vocab_size=100)


# Not Unigram, whose sums of probabilities the library takes in the order of a hash table.
@pytest.mark.parametrize("kind", ["words", "bpe", "wordpiece"])
def test_the_same_text_gives_the_same_tokenizer(kind: str) -> None:
    # Many pairs that come equally often, whose order nothing but their numbers decides.
    text = " ".join(f"{a}{b}{c}{b}" for a in "abcdefgh" for b in "ijklmnop" for c in "qrstuvwx")
    learnt = {make_tokenizer(kind, [text], vocab_size=300).to_json() for _ in range(4)}
    assert len(learnt) == 1


def test_signs_of_wordpiece_in_a_text_are_text() -> None:
    tokenizer = make_tokenizer("wordpiece", [TEXT + " ## ##e"], vocab_size=300)
    described = json.loads(tokenizer.to_json())["learnt"]
    assert [token["content"] for token in described["added_tokens"]] == ["<unk>"]
    assert len(tokenizer.encode("##e")) == 3


@pytest.mark.parametrize("kind", ["bytes", "characters", *KINDS])
def test_bytes_of_a_text_are_counted_where_tokens_give_it_back(kind: str) -> None:
    text = "Grüße, 世界! the lowest of the new"
    tokenizer = make_tokenizer(kind, [TEXT + text], vocab_size=300)
    whole = len(text.encode())
    lossy = kind in ("words", "wordpiece")
    assert tokenizer.text_bytes(tokenizer.encode(text)) == (None if lossy else whole)
    if kind == "unigram":
        assert tokenizer.text_bytes(tokenizer.encode(text + "é")) is None
