"""Reading text, and the order in which models see it."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from fusewire.data.corpus import make_corpus
from fusewire.data.text import ContiguousStreams, RandomWindows, read_text, segments
from fusewire.errors import InputError

TEXT = "The quick brown fox jumps over the lazy dog. " * 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b" \n\t ", "is empty"),
        (b"caf\xe9", "not UTF-8 text .byte 3 is 0xe9"),
        (b"\x89PNG\r\n", "not UTF-8 text .byte 0 is 0x89"),
        (b"a\0b\0", "holds NUL bytes"),
    ],
)
def test_files_that_are_no_text_are_refused(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as refusal:
        read_text(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        read_text(tmp_path)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a pipe or a device"):
        read_text(tmp_path / "pipe")


def test_byte_order_mark_and_carriage_returns_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffé\r\nb".encode())
    assert read_text(path) == "é\nb"


def test_a_corpus_splits_off_its_end() -> None:
    corpus = make_corpus(TEXT, "characters", context=16, source="it")
    whole = np.concatenate([corpus.train, corpus.validation])
    assert corpus.tokenizer.decode(whole) == TEXT
    assert len(corpus.validation) == len(TEXT) // 10
    assert corpus.tokens_per_character == 1.0


def test_the_fingerprint_is_of_the_text() -> None:
    first, second = (make_corpus(text, "bytes", 8, "it") for text in (TEXT, TEXT + "!"))
    assert first.fingerprint == make_corpus(TEXT, "characters", 16, "it").fingerprint
    assert first.fingerprint != second.fingerprint


def test_bytes_per_character_are_counted() -> None:
    assert make_corpus("é" * 100, "bytes", 8, "it").tokens_per_character == 2.0


def test_a_short_text_keeps_one_window_for_each_part() -> None:
    corpus = make_corpus("a" * 34, "bytes", context=16, source="it")
    assert (len(corpus.train), len(corpus.validation)) == (17, 17)
    with pytest.raises(InputError, match=r"FILE is too short: it has 33 tokens.* at least 34"):
        make_corpus("a" * 33, "bytes", context=16, source="FILE")


@pytest.mark.parametrize("length", [9, 10, 100])
def test_windows_are_shifted_by_one_and_depend_on_the_step_alone(length: int) -> None:
    windows = RandomWindows(np.arange(length), batch=6, context=8, seed=5)
    batch = windows.at(3)
    assert batch.inputs.shape == (6, 8)
    assert batch.inputs.dtype == np.int64
    np.testing.assert_array_equal(batch.targets, batch.inputs + 1)
    np.testing.assert_array_equal(batch.inputs, windows.at(3).inputs)
    assert not batch.continues


def test_windows_reach_every_token() -> None:
    windows = RandomWindows(np.arange(12), batch=8, context=4, seed=0)
    seen = {token for step in range(40) for token in windows.at(step).targets.flat}
    assert seen == set(range(1, 12))
    assert windows.at(0).inputs.tolist() != windows.at(1).inputs.tolist()


def test_streams_go_on_where_the_row_ended() -> None:
    streams = ContiguousStreams(np.arange(101), batch=3, context=8)
    read = [streams.at(step) for step in range(4)]
    assert [batch.continues for batch in read] == [False, True, True, True]
    for before, after in itertools.pairwise(read):
        np.testing.assert_array_equal(after.inputs[:, 0], before.targets[:, -1])
    rows = np.concatenate([batch.inputs for batch in read], axis=1)
    assert len(np.unique(rows)) == rows.size


def test_streams_start_again_together() -> None:
    streams = ContiguousStreams(np.arange(33), batch=2, context=8)
    again = streams.at(2)
    assert not again.continues
    np.testing.assert_array_equal(again.inputs, streams.at(0).inputs)


@pytest.mark.parametrize("length", [9, 10, 30])
def test_streams_of_a_short_text_overlap(length: int) -> None:
    batch = ContiguousStreams(np.arange(length), batch=7, context=8).at(5)
    np.testing.assert_array_equal(batch.targets, batch.inputs + 1)
    assert batch.targets.max() < length


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("length", [2, 8, 9, 17, 50])
def test_segments_score_every_token_once(length: int, batch: int) -> None:
    targets = [
        token
        for part in segments(np.arange(length), length=8, batch=batch)
        for token in part.targets.flat
    ]
    assert targets == list(range(1, length))
