"""Texts as documents that have nothing to do with each other: lines, paragraphs or files."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusewire.data.text import read_text, read_text_or_nothing
from fusewire.data.token_files import is_token_file, text_files
from fusewire.data.tokenizers import Tokenizer, TokenizerKind, Tokens, make_tokenizer
from fusewire.errors import InputError

DocumentKind: TypeAlias = Literal["lines", "paragraphs", "files"]

_VALIDATION_FRACTION = 0.1
_BETWEEN: dict[str, str] = {"lines": "\n", "paragraphs": r"\n\s*\n"}


@dataclass(frozen=True)
class Documents:
    """Token ids of documents, one behind another.

    Attributes:
        tokens: token ids, (tokens).
        bounds: where documents begin, and the end of the last, (documents + 1).
    """

    tokens: Tokens
    bounds: NDArray[np.int64]

    def first(self, tokens: int) -> Documents:
        """The first documents of at most so many tokens; at least one."""
        kept = max(int(np.searchsorted(self.bounds, tokens, side="right")), 2)
        return Documents(self.tokens, self.bounds[:kept])

    def pieces(self, context: int, ahead: int) -> NDArray[np.int64]:
        """Where a model's inputs begin and end, (pieces, 2), whole documents where they fit.

        Args:
            context: most tokens of a piece.
            ahead: tokens at the end of each document that are targets only: 1 for a model that
                says what comes next, 0 for one that fills in.
        """
        return np.array(
            [
                (first, min(first + context, end - ahead))
                for start, end in itertools.pairwise(self.bounds.tolist())
                for first in range(start, end - ahead, context)
            ],
            dtype=np.int64,
        ).reshape(-1, 2)


@dataclass(frozen=True)
class DocumentCorpus:
    """Documents as tokens, the last of them kept for validation.

    Attributes:
        tokenizer: what made the tokens.
        train: to learn from.
        validation: to measure on.
        tokens_per_character: turns a loss per token into bits per character.
        fingerprint: SHA-256 of the documents.
    """

    tokenizer: Tokenizer
    train: Documents
    validation: Documents
    tokens_per_character: float
    fingerprint: str


def load_documents(
    path: Path,
    kind: DocumentKind,
    tokenizer: TokenizerKind | Tokenizer,
    vocab_size: int = 8192,
    accept: Callable[[str], None] = lambda _: None,
) -> DocumentCorpus:
    """Reads documents as tokens; a tenth of the tokens, at the end, is for validation.

    Args:
        path: a UTF-8 text file, or a folder of ``.txt`` files.
        kind: what a document is.
        tokenizer: what makes the tokens, or what it is to be made for the text.
        vocab_size: most tokens of a tokenizer that is learnt from the text.
        accept: may refuse the documents by their fingerprint.

    Raises:
        InputError: the text cannot be read, or has fewer than two documents.
    """
    texts = read_documents(path, kind)
    if len(texts) < 2:
        raise InputError(
            f"{path} has {len(texts)} {kind}, and at least two are needed, one to learn from and "
            "one to measure on; say what a document is with --documents"
        )
    digest = hashlib.sha256("\0".join(texts).encode("utf-8")).hexdigest()
    accept(digest)
    if isinstance(tokenizer, str):
        tokenizer = make_tokenizer(tokenizer, ["".join(texts)], vocab_size)
    every = tokenize_documents(tokenizer, texts)
    wanted = len(every.tokens) * (1 - _VALIDATION_FRACTION)
    cut = int(np.searchsorted(every.bounds, wanted, side="right")) - 1
    last = len(every.bounds) - 2  # there may be fewer than texts
    if not last:
        raise InputError(
            f"{path} has one of {kind} that is longer than a token, and at least two are needed; "
            "say what a document is with --documents"
        )
    cut = min(max(cut, 1), last)
    at = int(every.bounds[cut])
    return DocumentCorpus(
        tokenizer,
        Documents(every.tokens[:at], every.bounds[: cut + 1]),
        Documents(every.tokens[at:], every.bounds[cut:] - at),
        len(every.tokens) / sum(map(len, texts)),
        digest,
    )


def read_documents(path: Path, kind: DocumentKind) -> list[str]:
    """The documents of a text, each between two ends of lines.

    The first says that a document begins, which is where a model begins to write; the last, that
    it is over.

    Args:
        path: a UTF-8 text file, or a folder of ``.txt`` files.
        kind: what a document is; paragraphs have an empty line between them.

    Raises:
        InputError: the text cannot be read.
    """
    if is_token_file(path):
        raise InputError(
            f"{path} does not say where documents begin; give the text or the folder it is made of"
        )
    read = read_text_or_nothing if path.is_dir() else read_text
    texts = [read(file) for file in text_files(path)]
    if kind != "files":
        texts = [part for text in texts for part in re.split(_BETWEEN[kind], text)]
    stripped = (text.strip("\n") for text in texts)
    return [f"\n{text}\n" for text in stripped if text.strip()]


def tokenize_documents(tokenizer: Tokenizer, texts: list[str]) -> Documents:
    """Documents as token ids; those that cannot have an input and a target are left out."""
    encoded = [ids for ids in map(tokenizer.encode, texts) if len(ids) > 1]
    if not encoded:
        raise InputError("no document has two tokens; give longer ones, or another tokenizer")
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return Documents(np.concatenate(encoded), ends)
