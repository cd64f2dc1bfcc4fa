"""Tokenizers: text to token ids and back, and to JSON and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusewire.errors import InputError

Tokens: TypeAlias = NDArray[np.integer[Any]]
"""Token ids in the narrowest unsigned type that holds them, so that long texts stay small."""

TokenizerKind: TypeAlias = Literal["bytes", "characters", "words", "bpe", "wordpiece", "unigram"]


class Tokenizer(Protocol):
    """Turns text into token ids and back."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids, which run from 0."""

    @property
    def start(self) -> str:
        """What generated text follows when there is no prompt: the end of a line."""

    def encode(self, text: str) -> Tokens:
        """Token ids of a text, (tokens,)."""

    def decode(self, tokens: Tokens) -> str:
        """The text of token ids."""

    def text_bytes(self, tokens: Tokens) -> int | None:
        """How many bytes of UTF-8 a text has that tokens give back; ``None`` where they do not."""

    def begins_word(self) -> NDArray[np.bool_]:
        """Which tokens a word begins with, (vocab_size); the space before it belongs to it."""

    def to_json(self) -> str:
        """A JSON object from which ``tokenizer_from_json`` makes an equal tokenizer."""


class ByteTokenizer:
    """The bytes of UTF-8: 256 tokens, and any text has some.

    Example:
        >>> tokenizer = ByteTokenizer()
        >>> tokenizer.encode("né").tolist()
        [110, 195, 169]
        >>> tokenizer.decode(tokenizer.encode("né"))
        'né'
    """

    vocab_size = 256
    start = "\n"

    def encode(self, text: str) -> Tokens:
        """Token ids of a text, one for each byte of its UTF-8 form."""
        return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)

    def decode(self, tokens: Tokens) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD."""
        return tokens.astype(np.uint8).tobytes().decode("utf-8", errors="replace")

    def text_bytes(self, tokens: Tokens) -> int:
        """How many bytes of UTF-8 a text has: one for each token."""
        return len(tokens)

    def begins_word(self) -> NDArray[np.bool_]:
        """Which bytes a word begins with: the white space before it."""
        return np.array([chr(byte).isspace() for byte in range(128)] + [False] * 128)

    def to_json(self) -> str:
        """A JSON object from which ``tokenizer_from_json`` makes an equal tokenizer."""
        return json.dumps({"kind": "bytes"})


class CharacterTokenizer:
    """One token for each character of a fixed vocabulary.

    Args:
        vocabulary: the characters, each once; the place of a character is its token id.

    Raises:
        ValueError: if the vocabulary is empty or names a character twice.

    Example:
        >>> tokenizer = CharacterTokenizer.of_text("banana")
        >>> tokenizer.encode("ban").tolist()
        [1, 0, 2]
    """

    def __init__(self, vocabulary: str) -> None:
        if not vocabulary or len(set(vocabulary)) != len(vocabulary):
            raise ValueError("a vocabulary must hold at least one character and each only once")
        self.vocabulary = vocabulary
        # Ids by code point, so that a whole text is looked up at once.
        code_points = np.array([ord(character) for character in vocabulary], dtype=np.uint32)
        ids = np.argsort(code_points)
        self._ids = ids.astype(np.min_scalar_type(len(vocabulary) - 1))
        self._sorted = code_points[ids]

    @classmethod
    def of_text(cls, text: str) -> CharacterTokenizer:
        """The tokenizer of exactly the characters that a text holds."""
        return cls("".join(sorted(set(text))))

    @property
    def vocab_size(self) -> int:
        """Number of characters in the vocabulary."""
        return len(self.vocabulary)

    @property
    def start(self) -> str:
        """The end of a line; in a vocabulary without one, its first character."""
        return "\n" if "\n" in self.vocabulary else self.vocabulary[0]

    def encode(self, text: str) -> Tokens:
        """Token ids of a text, one for each character.

        Raises:
            InputError: if the text holds a character that the vocabulary lacks.
        """
        code_points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        found = np.searchsorted(self._sorted, code_points).clip(max=self.vocab_size - 1)
        known = self._sorted[found] == code_points
        if not known.all():
            unknown = "".join(sorted(set(map(chr, code_points[~known].tolist()))))
            raise InputError(
                f"characters unknown to this model: {unknown!r}; leave them out, "
                "or train on bytes, which know every character"
            )
        ids: Tokens = self._ids[found]
        return ids

    def decode(self, tokens: Tokens) -> str:
        """The text of token ids."""
        return "".join(self.vocabulary[token] for token in tokens.tolist())

    def text_bytes(self, tokens: Tokens) -> int:
        """How many bytes of UTF-8 a text has."""
        return len(self.decode(tokens).encode("utf-8"))

    def begins_word(self) -> NDArray[np.bool_]:
        """Which characters a word begins with: the white space before it."""
        return np.array([character.isspace() for character in self.vocabulary])

    def to_json(self) -> str:
        """A JSON object from which ``tokenizer_from_json`` makes an equal tokenizer."""
        return json.dumps({"kind": "characters", "vocabulary": self.vocabulary})


def make_tokenizer(kind: TokenizerKind, pieces: Iterable[str], vocab_size: int = 8192) -> Tokenizer:
    """The tokenizer of a kind that covers a text.

    Args:
        kind: what a token is.
        pieces: of the text from which characters, words and parts of words are learnt; they may be
            asked for twice.
        vocab_size: most tokens of those that are learnt.

    Raises:
        InputError: the vocabulary has no room.
    """
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "characters":
        return CharacterTokenizer("".join(sorted(set().union(*pieces))))
    from fusewire.data.subword_tokenizers import SubwordTokenizer  # only these need the library

    return SubwordTokenizer.learn(kind, pieces, vocab_size)


def tokenizer_of_texts(
    wanted: Tokenizer | TokenizerKind, texts: Iterable[str], vocab_size: int = 8192
) -> Tokenizer:
    """A tokenizer as it is, or what of its kind is learnt from texts.

    Args:
        wanted: what makes the tokens, or what it is to be made for the texts.
        texts: to learn from, a line's end between them.
        vocab_size: most tokens of what is learnt.
    """
    if not isinstance(wanted, str):
        return wanted
    return make_tokenizer(wanted, ["\n".join(texts)], vocab_size)


def tokenizer_from_json(content: str) -> Tokenizer:
    """Makes the tokenizer that ``to_json`` described.

    Raises:
        ValueError: if the JSON describes no tokenizer.
    """
    match json.loads(content):
        case {"kind": "bytes"}:
            return ByteTokenizer()
        case {"kind": "characters", "vocabulary": str(vocabulary)}:
            return CharacterTokenizer(vocabulary)
        case {"kind": "words" | "bpe" | "wordpiece" | "unigram" as kind, "learnt": learnt}:
            from fusewire.data.subword_tokenizers import SubwordTokenizer

            return SubwordTokenizer.from_description(kind, learnt)
    raise ValueError("expected a JSON object that describes a tokenizer")


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer that was saved as JSON.

    Raises:
        InputError: if the file is missing or damaged.
    """
    try:
        return tokenizer_from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as failure:
        raise InputError(
            f"cannot read the tokenizer {path}: {failure}; train the model again"
        ) from failure
