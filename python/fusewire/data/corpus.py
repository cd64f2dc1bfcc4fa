"""A text as tokens: from a file, a folder, or a file of tokens that was made of them before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fusewire.data.text import read_text
from fusewire.data.token_files import TextPieces, is_token_file, open_tokens
from fusewire.data.tokenizers import Tokenizer, TokenizerKind, Tokens, make_tokenizer
from fusewire.errors import InputError

_VALIDATION_FRACTION = 0.1


@dataclass(frozen=True)
class Corpus:
    """A text as tokens, its last part kept for validation.

    Attributes:
        tokenizer: what made the tokens.
        train: token ids to learn from, (tokens,); of a file of tokens, mapped and not in memory.
        validation: token ids to measure on, (tokens,).
        tokens_per_character: turns a loss per token into bits per character.
        fingerprint: SHA-256 of the text.
    """

    tokenizer: Tokenizer
    train: Tokens
    validation: Tokens
    tokens_per_character: float
    fingerprint: str


def load_corpus(
    path: Path,
    tokenizer: TokenizerKind | Tokenizer,
    context: int,
    vocab_size: int = 8192,
    accept: Callable[[str], None] = lambda _: None,
) -> Corpus:
    """Reads a text as tokens.

    Args:
        path: a UTF-8 text file, a folder of ``.txt`` files, or what `write_tokens` made of either,
            which brings its tokenizer along.
        tokenizer: what makes the tokens, or what it is to be made for the text.
        context: tokens per window.
        vocab_size: most tokens of a tokenizer that is learnt from the text.
        accept: may refuse the text by its fingerprint.

    Raises:
        InputError: the text cannot be read or is too short, or the file of tokens has another
            tokenizer than the model that goes on from here.
    """
    if not is_token_file(path):
        return make_corpus(read_texts(path), tokenizer, context, str(path), vocab_size, accept)
    file = open_tokens(path)
    accept(file.fingerprint)
    if not isinstance(tokenizer, str) and tokenizer.to_json() != file.tokenizer.to_json():
        raise InputError(f"{path} was made with another tokenizer than the model's; make it anew")
    return _split(file.tokenizer, file.tokens, file.characters, context, path, file.fingerprint)


def make_corpus(
    text: str,
    tokenizer: TokenizerKind | Tokenizer,
    context: int,
    source: str,
    vocab_size: int = 8192,
    accept: Callable[[str], None] = lambda _: None,
) -> Corpus:
    """Turns a text into tokens to train and to validate on.

    A tenth is for validation, cut off at the end so that no window spans both parts; of a short
    text more, so that both parts hold one window of ``context`` tokens and its targets.

    Args:
        text: what to learn.
        tokenizer: what makes the tokens, or what it is to be made for the text.
        context: tokens per window.
        source: how error messages call the text.
        vocab_size: most tokens of a tokenizer that is learnt from the text.
        accept: may refuse the text by its fingerprint.

    Raises:
        InputError: if the text is too short for one window to train on and one to validate on.
    """
    fingerprint = hashlib.sha256(text.encode("utf-8")).hexdigest()
    accept(fingerprint)
    if isinstance(tokenizer, str):
        tokenizer = make_tokenizer(tokenizer, [text], vocab_size)
    return _split(tokenizer, tokenizer.encode(text), len(text), context, source, fingerprint)


def read_texts(path: Path) -> str:
    """The text of a file, or of all ``*.txt`` in a folder and below.

    Raises:
        InputError: there is no text, or it cannot be read.
    """
    if not path.is_dir():
        return read_text(path)
    text = "".join(TextPieces(path))
    if not text.strip():
        raise InputError(f"{path} is empty; give texts with something to learn")
    return text


def _split(
    tokenizer: Tokenizer,
    tokens: Tokens,
    characters: int,
    context: int,
    source: object,
    fingerprint: str,
) -> Corpus:
    needed = 2 * (context + 1)
    if len(tokens) < needed:
        raise InputError(
            f"{source} is too short: it has {len(tokens)} tokens, and a context of {context} needs "
            f"at least {needed} (one window to train on, one to validate on); "
            "give a longer text or a smaller --context"
        )
    cut = len(tokens) - max(int(len(tokens) * _VALIDATION_FRACTION), context + 1)
    per_character = len(tokens) / characters
    return Corpus(tokenizer, tokens[:cut], tokens[cut:], per_character, fingerprint)
