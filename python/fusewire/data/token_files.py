"""Texts of any size as files of token ids, read by mapping them into memory.

A file is a header of one line of JSON, the ids behind it, little-endian, in the narrowest unsigned
type, and the tokenizer that made them; it is written piece by piece, so that neither writing nor
reading needs memory for the whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from fusewire.data.files import require_regular
from fusewire.data.tokenizers import Tokenizer, Tokens, tokenizer_from_json
from fusewire.errors import InputError

_SUFFIX = ".tokens"
_HEADER = 256  # bytes; padded, so that the count can be filled in at the end
_PIECE = 1 << 20  # characters that are read at a time


@dataclass(frozen=True)
class TokenFile:
    """A mapped file.

    Attributes:
        tokenizer: what made them.
        tokens: token ids, (tokens,), not in memory until they are used.
        characters: of the text that they stand for.
        fingerprint: SHA-256 of the text.
    """

    tokenizer: Tokenizer
    tokens: Tokens
    characters: int
    fingerprint: str


def is_token_file(path: Path) -> bool:
    """Whether a path is named like a file of tokens."""
    return path.suffix == _SUFFIX


def text_files(path: Path) -> list[Path]:
    """A file, or all ``*.txt`` in a folder and below, in the order of their names.

    Raises:
        InputError: there is none in the folder.
    """
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no .txt files")
    return files


@dataclass(frozen=True)
class TextPieces(Iterable[str]):
    """The text of a file, or of all ``*.txt`` in a folder and below, in the order of their names.

    Pieces end at the ends of lines where they can, and are read anew each time they are asked for.

    Attributes:
        path: the file or folder.
    """

    path: Path

    def __iter__(self) -> Iterator[str]:
        """Yields the pieces.

        Raises:
            InputError: there is no text, or it cannot be read.
        """
        for file in text_files(self.path):
            try:
                require_regular(file)
                with file.open(encoding="utf-8-sig") as lines:
                    while piece := lines.read(_PIECE):
                        yield piece + lines.readline()
            except OSError as failure:
                raise InputError(f"cannot read {file}: {failure.strerror or failure}") from failure
            except UnicodeDecodeError as failure:
                raise InputError(f"{file} is not UTF-8 text: {failure}") from failure


def write_tokens(path: Path, tokenizer: Tokenizer, out: Path) -> TokenFile:
    """Tokenizes a text file or folder of any size into a file.

    Args:
        path: what `TextPieces` reads.
        tokenizer: of the ids.
        out: the file to write, whose name ends in ``.tokens``.

    Returns:
        The file, mapped.

    Raises:
        InputError: the text cannot be read, or the file not be written.
    """
    if not is_token_file(out):
        raise InputError(f"{out}: expected a name that ends in {_SUFFIX}")
    kind = np.min_scalar_type(max(tokenizer.vocab_size - 1, 0)).newbyteorder("<")
    hashed, count, characters = hashlib.sha256(), 0, 0
    try:
        with out.open("wb") as file:
            file.write(b" " * _HEADER)
            for piece in TextPieces(path):
                ids = tokenizer.encode(piece).astype(kind)
                file.write(ids.tobytes())
                hashed.update(piece.encode("utf-8"))
                count, characters = count + len(ids), characters + len(piece)
            file.write(tokenizer.to_json().encode("utf-8"))
            _write_header(file, kind.str, count, characters, hashed.hexdigest())
    except OSError as failure:
        raise InputError(f"cannot write {out}: {failure.strerror or failure}") from failure
    return open_tokens(out)


def open_tokens(path: Path) -> TokenFile:
    """Maps a file that `write_tokens` made.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(_HEADER))
            kind, count = np.dtype(header["dtype"]), header["tokens"]
            end = _HEADER + count * kind.itemsize
            if kind.kind != "u" or path.stat().st_size < end:
                raise ValueError(f"expected {count} tokens of type {kind}")
            file.seek(end)
            tokenizer = tokenizer_from_json(file.read().decode("utf-8"))
        tokens = np.memmap(path, kind, mode="r", offset=_HEADER, shape=(count,))
        return TokenFile(tokenizer, tokens, header["characters"], header["sha256"])
    except OSError as failure:
        raise InputError(f"cannot read {path}: {failure.strerror or failure}") from failure
    except (ValueError, KeyError, TypeError) as damage:
        raise InputError(f"{path} is no file of tokens: {damage}") from damage


def _write_header(file: IO[bytes], dtype: str, tokens: int, characters: int, digest: str) -> None:
    header = {"dtype": dtype, "tokens": tokens, "characters": characters, "sha256": digest}
    file.seek(0)
    file.write(json.dumps(header).encode("ascii").ljust(_HEADER - 1) + b"\n")
