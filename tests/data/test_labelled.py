"""Labelled texts and pairs: every form, split by content, refused in words."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from fusewire.data.labelled import load_labelled, load_pairs
from fusewire.errors import InputError

ROWS = [(f"text, number {place}", "even" if place % 2 == 0 else "odd") for place in range(40)]


def write(form: str, folder: Path) -> Path:
    if form == "csv":
        lines = ["label,text", *(f'{label},"{text}"' for text, label in ROWS)]
        (folder / "rows.csv").write_text("\n".join(lines))
        return folder / "rows.csv"
    if form == "tsv":
        lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in ROWS)]
        (folder / "rows.tsv").write_text("\n".join(lines))
        return folder / "rows.tsv"
    if form == "jsonl":
        objects = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
        (folder / "rows.jsonl").write_text("\n".join(objects) + "\n\n")
        return folder / "rows.jsonl"
    for label in ("even", "odd"):
        texts = [text for text, other in ROWS if other == label]
        if form == "lines":
            (folder / f"{label}.txt").write_text("\n".join(texts))
        elif form == "endings":
            (folder / f"rows.{label}").write_text(" \n".join(texts) + " \n")
            (folder / "README").write_text("what this is\n")
        else:
            (folder / label).mkdir()
            for number, text in enumerate(texts):
                (folder / label / f"{number}.txt").write_text(text)
    return folder


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "lines", "endings", "folders"])
def test_every_form_gives_the_same_split(form: str, tmp_path: Path) -> None:
    (tmp_path / "this").mkdir()
    (tmp_path / "csv").mkdir()
    data = load_labelled(write(form, tmp_path / "this"), validation=0.25)
    assert data == load_labelled(write("csv", tmp_path / "csv"), validation=0.25)
    assert data.classes == ("even", "odd")
    assert (len(data.train), len(data.validation)) == (30, 10)
    for text, label in (*data.train, *data.validation):
        assert (text, data.classes[label]) in ROWS


def test_no_text_is_on_both_sides(tmp_path: Path) -> None:
    doubled = "\n".join(json.dumps({"text": text, "label": label}) for text, label in ROWS * 3)
    (tmp_path / "rows.jsonl").write_text(doubled)
    data = load_labelled(tmp_path / "rows.jsonl")
    assert len(data.train) + len(data.validation) == 40
    assert not {text for text, _ in data.train} & {text for text, _ in data.validation}


def test_fewer_labels_are_a_part_of_more(tmp_path: Path) -> None:
    path = write("csv", tmp_path)
    few, many = load_labelled(path, labels=0.1), load_labelled(path)
    assert len(few.train) == 4
    assert set(few.train) < set(many.train)
    assert few.validation == many.validation


def test_long_texts_and_foreign_ends_of_lines_are_whole(tmp_path: Path) -> None:
    texts = ["a" * 200_000, "two\u2028lines", 'a "quoted",\nword']
    rows = [{"text": text, "label": str(len(text))} for text in texts]
    with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["text", "label"])
        table.writeheader()
        table.writerows(rows)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for name in ("rows.csv", "rows.jsonl"):
        data = load_labelled(tmp_path / name)
        assert {text for text, _ in (*data.train, *data.validation)} == set(texts)


def test_both_sides_hold_a_text(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,b\nc,d\n")
    data = load_labelled(tmp_path / "rows.csv", validation=0.9)
    assert (len(data.train), len(data.validation)) == (1, 1)


def test_pairs_with_one_source_stay_together(tmp_path: Path) -> None:
    rows = [{"source": str(n // 4), "target": str(n)} for n in range(40)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = load_pairs(tmp_path / "pairs.jsonl", validation=0.3)
    assert len(pairs.train) + len(pairs.validation) == 40
    assert not {source for source, _ in pairs.train} & {source for source, _ in pairs.validation}


def test_an_empty_file_among_texts_is_none(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    folder = write("folders", tmp_path / "all")
    (folder / "even" / "empty.txt").write_text("\n")
    (folder / "odd" / "nothing.txt").touch()
    (tmp_path / "csv").mkdir()
    assert load_labelled(folder) == load_labelled(write("csv", tmp_path / "csv"))


def test_folders_hold_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="with the columns or keys source and target"):
        load_pairs(write("folders", tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "text,class\na,b\n", "must have the columns text and label"),
        ("rows.csv", "text,label\na,b\nc,b\n", "texts of 1 classes"),
        ("rows.csv", "text,label\na\n", "expected 2 columns"),
        ("rows.csv", "text,label\na, b,c\n", "line 2: expected 2 columns; .*commas .* quotes"),
        ("rows.csv", "text,label\na,b\nc,\n", "label of 'c' is empty"),
        ("rows.csv", "text,label\na,b\nc,d\na,d\n", "'a' has two labels, b and d; give it one"),
        ("rows.jsonl", '{"text": "a", "label": null}\n', "line 1: expected an object"),
        ("rows.jsonl", '{"text": "a"}\n', "line 1: expected an object"),
        ("rows.jsonl", "[]\n", "line 1: expected an object"),
        ("rows.txt", "a\n", "is no .csv, .tsv or .jsonl file with"),
    ],
)
def test_what_is_no_data_is_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_labelled(tmp_path / name)
