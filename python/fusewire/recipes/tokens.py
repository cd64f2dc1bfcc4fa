"""Files of tokens, made once for texts that are read often or do not fit into memory."""

from __future__ import annotations

from pathlib import Path

from fusewire.data.token_files import TextPieces, is_token_file, write_tokens
from fusewire.data.tokenizers import TokenizerKind, make_tokenizer


def tokenize(path: Path, out: Path, kind: TokenizerKind = "bytes", vocab_size: int = 8192) -> int:
    """Learns a tokenizer from a text, and writes the text as its tokens.

    Args:
        path: a UTF-8 text file, or a folder of ``.txt`` files.
        out: the file to write, whose name ends in ``.tokens``; `train lm` reads it.
        kind: what a token is.
        vocab_size: most tokens of a tokenizer that is learnt.

    Returns:
        How many tokens there are.

    Raises:
        InputError: the text cannot be read, or the file not be written.
    """
    tokenizer = make_tokenizer(kind, TextPieces(path), vocab_size)
    return len(write_tokens(path, tokenizer, out).tokens)


def brings_tokenizer(path: Path) -> bool:
    """Whether a file is named like one that `tokenize` makes, whose tokenizer counts."""
    return is_token_file(path)
