"""Text as it comes: the same as all at once, whole characters only, until it stops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusewire.data.subword_tokenizers import SubwordKind, SubwordTokenizer
from fusewire.data.tokenizers import (
    ByteTokenizer,
    CharacterTokenizer,
    TokenizerKind,
    make_tokenizer,
)
from fusewire.errors import InputError
from fusewire.models.language import Recurrent, RecurrentConfig
from fusewire.training.sequence.config import SamplingConfig
from fusewire.training.sequence.writing import cut_at, stream_text, write_texts


class Recital(torch.nn.Module):
    """Says a text, whatever it is asked."""

    window = None

    def __init__(self, tokens: np.ndarray, vocab_size: int) -> None:
        super().__init__()
        self.place = torch.nn.Parameter(torch.zeros(()))
        self.tokens, self.vocab_size = tokens.tolist(), vocab_size
        self.asked = 0

    def begin(self, tokens: torch.Tensor, _padding: None) -> tuple[torch.Tensor, int]:
        self.asked = 1
        return self._say(len(tokens), 0), 1

    def forward(self, tokens: torch.Tensor, state: int) -> tuple[torch.Tensor, int]:
        self.asked += 1
        return self._say(len(tokens), state)[:, None], state + 1

    def _say(self, batch: int, place: int) -> torch.Tensor:
        said = torch.tensor([self.tokens[place % len(self.tokens)]] * batch)
        return torch.nn.functional.one_hot(said, self.vocab_size).float() * 100


def recital(text: str) -> tuple[Recital, ByteTokenizer]:
    tokenizer = ByteTokenizer()
    return Recital(tokenizer.encode(text), 256), tokenizer


def settings(**changes: object) -> SamplingConfig:
    return SamplingConfig(**{"prompt": "> ", "length": 40, "temperature": 0.0, **changes})


def test_whole_characters_come() -> None:
    model, tokenizer = recital("né 世界! ")
    parts = list(stream_text(model, tokenizer, settings(length=12)))
    assert parts[0] == "> "
    assert "".join(parts) == "> né 世界! "
    assert all("�" not in part for part in parts)


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@pytest.mark.parametrize("length", range(1, 9))
def test_what_is_no_whole_character_in_the_end_comes_too(kind: TokenizerKind, length: int) -> None:
    tokenizer = make_tokenizer(kind, [""], 256)
    model = Recital(tokenizer.encode("é世界"), 256)
    sampling = settings(length=length)
    assert "".join(stream_text(model, tokenizer, sampling)) + "\n" == write_texts(
        model, tokenizer, sampling
    )


def test_a_stop_string_ends_the_text_and_is_not_shown() -> None:
    model, tokenizer = recital("one, two, END three")
    stop = settings(stop=("END", "never"))
    assert "".join(stream_text(model, tokenizer, stop)) == "> one, two, "
    assert write_texts(model, tokenizer, stop) == "> one, two, \n"
    # What only looks like its beginning is shown in the end.
    model, tokenizer = recital("E EN ENE")
    assert "".join(stream_text(model, tokenizer, settings(length=8, stop=("END",)))) == "> E EN ENE"


def test_streaming_gives_the_text_that_is_drawn_at_once() -> None:
    torch.manual_seed(0)
    tokenizer = CharacterTokenizer("\nabcdefgh")
    model = Recurrent(RecurrentConfig("gru", embed_dim=8, hidden_size=8), 9)
    sampling = SamplingConfig(prompt="abc", length=50, seed=3, top_p=0.9)
    streamed = "".join(stream_text(model, tokenizer, sampling))
    assert streamed.strip("\n") + "\n" == write_texts(model, tokenizer, sampling)


def test_beams_find_the_likeliest() -> None:
    model, tokenizer = recital("abc")
    model.select = lambda state, _rows: state
    assert write_texts(model, tokenizer, settings(length=5, beams=3)) == "> abcab\n"


def test_beams_heed_truncations_and_stops() -> None:
    model, tokenizer = recital("abc")
    model.select = lambda state, _rows: state
    stopped = settings(length=9, beams=2, stop=("ca",), min_p=0.5, top_k=3, top_p=0.9)
    assert write_texts(model, tokenizer, stopped) == "> ab\n"
    assert model.asked == 4
    # Only one text is left by a truncation that leaves one token.
    alone = settings(length=4, beams=3, count=3, top_k=1)
    assert write_texts(model, tokenizer, alone) == "> abca\n"


@pytest.mark.parametrize("kind", ["words", "wordpiece", "unigram", "bpe"])
def test_what_follows_a_prompt_is_joined_to_it(kind: SubwordKind) -> None:
    text = "the cat sat on the mat and the dog ran to the log"
    tokenizer = SubwordTokenizer.learn(kind, [text], 256 if kind == "bpe" else 40)
    ids = tokenizer.encode(text)
    for cut in range(1, len(ids) - 1):
        prompt = tokenizer.decode(ids[:cut])
        if tokenizer.encode(prompt).tolist() != ids[:cut].tolist():
            continue  # a half word that has tokens of its own
        model = Recital(ids[cut:], tokenizer.vocab_size)
        sampling = settings(prompt=prompt, length=len(ids) - cut)
        assert write_texts(model, tokenizer, sampling) == text + "\n"
        assert "".join(stream_text(model, tokenizer, sampling)) == text


def test_the_first_stop_counts() -> None:
    assert cut_at("a b c", ("c", "b")) == "a "
    assert cut_at("a b c", ()) == "a b c"
    with pytest.raises(InputError, match="a stop string is empty"):
        settings(stop=("",))
