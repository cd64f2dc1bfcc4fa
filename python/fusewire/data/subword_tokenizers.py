"""Tokenizers that are learnt from a text: words, BPE, WordPiece and Unigram."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Learnt
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from fusewire.errors import InputError

SubwordKind: TypeAlias = Literal["words", "bpe", "wordpiece", "unigram"]
SUBWORD_KINDS: tuple[SubwordKind, ...] = ("words", "bpe", "wordpiece", "unigram")

_UNKNOWN = "<unk>"
_LINE = 1 << 16  # characters that are given to training at a time


class SubwordTokenizer:
    """Tokens that were learnt from a text, by Hugging Face's tokenizers.

    BPE (on bytes, as GPT-2's) and Unigram (SentencePiece's) give any text back; words and
    WordPiece (BERT's) lose its spaces, and have a token for what they do not know.

    Args:
        kind: what was learnt.
        learnt: the tokenizer.

    Example:
        >>> tokenizer = SubwordTokenizer.learn("bpe", ["low lower lowest " * 9], vocab_size=270)
        >>> tokenizer.decode(tokenizer.encode("lowest low"))
        'lowest low'
    """

    def __init__(self, kind: SubwordKind, learnt: Learnt) -> None:
        self.kind = kind
        self._learnt = learnt

    @classmethod
    def learn(cls, kind: SubwordKind, pieces: Iterable[str], vocab_size: int) -> SubwordTokenizer:
        """Learns a vocabulary of at most ``vocab_size`` tokens from the pieces of a text.

        Words, BPE and WordPiece are the same whenever they are learnt from the same text. Of
        Unigram's, pieces that are about equally probable may change places.

        Raises:
            InputError: there is room for no vocabulary.
        """
        if vocab_size < 2 or (kind == "bpe" and vocab_size < 256):
            least = 256 if kind == "bpe" else 2
            raise InputError(f"vocab_size must be at least {least} for {kind}, got {vocab_size}")
        if kind == "wordpiece":
            return cls(kind, _learn_wordpiece(pieces, vocab_size))
        learnt, trainer = _parts(kind, vocab_size)
        learnt.train_from_iterator(_lines(pieces), trainer)
        return cls(kind, learnt)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return int(self._learnt.get_vocab_size())

    @property
    def start(self) -> str:
        """The end of a line; of a sentence where the ends of lines are no tokens."""
        return "\n" if len(self.encode("\n")) else "."

    def encode(self, text: str) -> NDArray[np.integer[Any]]:
        """Token ids of a text, (tokens,)."""
        ids = np.array(self._learnt.encode(text, add_special_tokens=False).ids, dtype=np.uint32)
        return ids.astype(np.min_scalar_type(max(self.vocab_size - 1, 0)))

    def decode(self, tokens: NDArray[np.integer[Any]]) -> str:
        """The text of token ids."""
        return str(self._learnt.decode(tokens.tolist(), skip_special_tokens=False))

    def text_bytes(self, tokens: NDArray[np.integer[Any]]) -> int | None:
        """How many bytes of UTF-8 a text has that tokens give back; ``None`` where they do not."""
        if self.kind == "bpe":  # each character of a token stands for a byte
            sizes = np.zeros(self.vocab_size, dtype=np.int64)
            for token, place in self._learnt.get_vocab().items():
                sizes[place] = len(token)
            return int(sizes[tokens].sum())
        if self.kind == "unigram" and self._learnt.token_to_id(_UNKNOWN) not in tokens:
            return len(self.decode(tokens).encode("utf-8"))
        return None

    def begins_word(self) -> NDArray[np.bool_]:
        """Which tokens a word begins with, (vocab_size)."""
        begins = np.ones(self.vocab_size, dtype=np.bool_)
        for token, place in self._learnt.get_vocab().items():
            if self.kind == "bpe":  # "Ġ" stands for a space, "Ċ" for a line's end
                begins[place] = token[0] in "ĠĊ"
            elif self.kind == "unigram":
                begins[place] = token.startswith("▁")
            elif self.kind == "wordpiece":
                begins[place] = not token.startswith("##")
        return begins

    def to_json(self) -> str:
        """A JSON object from which ``tokenizer_from_json`` makes an equal tokenizer."""
        return json.dumps({"kind": self.kind, "learnt": json.loads(self._learnt.to_str())})

    @classmethod
    def from_description(cls, kind: SubwordKind, learnt: object) -> SubwordTokenizer:
        """Makes the tokenizer that ``to_json`` described.

        Raises:
            ValueError: it describes none.
        """
        try:
            return cls(kind, Learnt.from_str(json.dumps(learnt)))
        except Exception as damage:  # the library raises bare exceptions
            raise ValueError(f"expected what tokenizers writes: {damage}") from damage


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    for piece in pieces:
        for start in range(0, len(piece), _LINE):
            yield piece[start : start + _LINE]


def _learn_wordpiece(pieces: Iterable[str], vocab_size: int) -> Learnt:
    """The same vocabulary whenever it is learnt from the same text.

    The library numbers the letters inside words (``##a``) in the order in which a hash table with a
    random seed holds the words; numbers decide which of two pairs that come equally often becomes
    a token. So the letters are found first, by learning nothing else, and numbered as special
    tokens, which come in the order given; special they are only while learning.
    """
    found, trainer = _parts("wordpiece", 2)
    found.train_from_iterator(_lines(pieces), trainer)
    inside = sorted(token for token in found.get_vocab() if token.startswith("##"))
    learnt, trainer = _parts("wordpiece", vocab_size)
    trainer.special_tokens = [_UNKNOWN, *inside]
    learnt.train_from_iterator(_lines(pieces), trainer)
    described = json.loads(learnt.to_str())
    described["added_tokens"] = [
        token for token in described["added_tokens"] if token["content"] == _UNKNOWN
    ]
    return Learnt.from_str(json.dumps(described))


def _parts(kind: SubwordKind, vocab_size: int) -> tuple[Learnt, Any]:
    """An empty tokenizer, and what teaches it."""
    if kind == "bpe":
        learnt = Learnt(models.BPE())
        learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        learnt.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        return learnt, trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False
        )
    unknown: dict[str, Any] = {"special_tokens": [_UNKNOWN], "show_progress": False}
    if kind == "unigram":
        learnt = Learnt(models.Unigram())
        learnt.pre_tokenizer = pre_tokenizers.Metaspace()
        learnt.decoder = decoders.Metaspace()
        return learnt, trainers.UnigramTrainer(vocab_size=vocab_size, unk_token=_UNKNOWN, **unknown)
    if kind == "wordpiece":
        learnt = Learnt(models.WordPiece(unk_token=_UNKNOWN))
        learnt.normalizer = normalizers.BertNormalizer(lowercase=True)
        learnt.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        learnt.decoder = decoders.WordPiece()
        return learnt, trainers.WordPieceTrainer(vocab_size=vocab_size, **unknown)
    learnt = Learnt(models.WordLevel(unk_token=_UNKNOWN))
    learnt.normalizer = normalizers.Lowercase()
    learnt.pre_tokenizer = pre_tokenizers.Whitespace()
    return learnt, trainers.WordLevelTrainer(vocab_size=vocab_size, **unknown)
