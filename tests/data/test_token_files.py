"""Token files: written in pieces, read by mapping, refused when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusewire.data import token_files
from fusewire.data.text import RandomWindows
from fusewire.data.token_files import TextPieces, open_tokens, write_tokens
from fusewire.data.tokenizers import ByteTokenizer, CharacterTokenizer
from fusewire.errors import InputError


def test_a_folder_becomes_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_files, "_PIECE", 7)
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.txt").write_text("second line\nthird é\n", encoding="utf-8")
    (folder / "a.txt").write_text("first\n")
    (folder / "deep" / "c.txt").write_text("last")
    (folder / "ignored.md").write_text("no")
    whole = "first\nsecond line\nthird é\nlast"
    assert "".join(TextPieces(folder)) == whole

    written = write_tokens(folder, ByteTokenizer(), tmp_path / "it.tokens")
    assert ByteTokenizer().decode(written.tokens) == whole
    assert written.characters == len(whole)
    assert isinstance(written.tokens, np.memmap)
    assert written.tokens.dtype == np.uint8
    again = open_tokens(tmp_path / "it.tokens")
    assert again.fingerprint == written.fingerprint

    windows = RandomWindows(again.tokens, batch=3, context=5, seed=0)
    batch = windows.at(2)
    assert batch.inputs.shape == (3, 5)


def test_large_vocabularies_take_wider_numbers(tmp_path: Path) -> None:
    tokenizer = CharacterTokenizer("".join(chr(0x4E00 + place) for place in range(300)))
    (tmp_path / "text.txt").write_text(chr(0x4E00 + 299), encoding="utf-8")
    written = write_tokens(tmp_path / "text.txt", tokenizer, tmp_path / "it.tokens")
    assert written.tokens.dtype == np.dtype("<u2")
    assert written.tokens.tolist() == [299]


def test_damage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("hello")
    write_tokens(tmp_path / "text.txt", ByteTokenizer(), tmp_path / "it.tokens")
    content = (tmp_path / "it.tokens").read_bytes()
    (tmp_path / "it.tokens").write_bytes(content[:-1])
    with pytest.raises(InputError, match="is no file of tokens"):
        open_tokens(tmp_path / "it.tokens")
    (tmp_path / "it.tokens").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="is no file of tokens"):
        open_tokens(tmp_path / "it.tokens")
    with pytest.raises(InputError, match="cannot read"):
        open_tokens(tmp_path / "absent.tokens")
    with pytest.raises(InputError, match=r"holds no \.txt files"):
        list(TextPieces(_empty(tmp_path)))
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    with pytest.raises(InputError, match="is not UTF-8"):
        list(TextPieces(tmp_path / "latin.txt"))


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"
