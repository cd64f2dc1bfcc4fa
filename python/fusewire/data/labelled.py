"""Texts with labels, and pairs of texts: CSV, JSON lines, folders."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fusewire.data.text import read_text, read_text_or_nothing
from fusewire.errors import InputError

_EXPECTED = "; a folder holds a folder of texts or a file of lines for each class"


@dataclass(frozen=True)
class Labelled:
    """Texts with labels, split by what they say, so that no text is on both sides.

    Attributes:
        classes: names, in order; a label is a place in it.
        texts: all that are not measured on, whether their labels are in ``train`` or not.
        train: texts and labels to learn from.
        validation: texts and labels to measure on.
        fingerprint: SHA-256 of everything.
    """

    classes: tuple[str, ...]
    texts: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    validation: tuple[tuple[str, int], ...]
    fingerprint: str


def load_labelled(path: Path, validation: float = 0.1, labels: float = 1.0) -> Labelled:
    """Reads texts with labels; a text that comes twice is kept once.

    Args:
        path: a CSV file with the columns ``text`` and ``label``, a file of JSON objects with these
            keys, one a line, or a folder with something for each class: a folder of texts, a
            ``.txt`` file of lines, or a file of lines named alike but for its ending, such as
            ``reviews.neg`` and ``reviews.pos``.
        validation: part of the texts to measure on, chosen by their hash.
        labels: part of the other texts to learn from, chosen by their hash too.

    Raises:
        InputError: there are no such texts, they have fewer than two labels, or one text has two.
    """
    texts = _labelled(path)
    classes = tuple(sorted(set(texts.values())))
    if len(classes) < 2:
        raise InputError(
            f"{path} has texts of {len(classes)} classes, and at least two are needed"
            + _EXPECTED * path.is_dir()
        )
    places = {text: _hash(text) for text in texts}
    ordered = sorted(texts, key=places.__getitem__)
    measured = min(max(1, round(validation * len(ordered))), len(ordered) - 1)
    learnt = max(1, round(labels * (len(ordered) - measured)))

    def labelled(part: list[str]) -> tuple[tuple[str, int], ...]:
        return tuple((text, classes.index(texts[text])) for text in part)

    digest = hashlib.sha256(json.dumps(sorted(texts.items())).encode()).hexdigest()
    return Labelled(
        classes,
        tuple(ordered[measured:]),
        labelled(ordered[measured : measured + learnt]),
        labelled(ordered[:measured]),
        digest,
    )


def load_known(path: Path, classes: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Reads texts with labels that are known, all of them or a few.

    Args:
        path: what `load_labelled` reads.
        classes: the names of the labels; those of the result are places in it.

    Raises:
        InputError: there are no such texts, or they have other labels.
    """
    texts = _labelled(path)
    if not texts:
        raise InputError(f"{path} has no texts with labels" + _EXPECTED * path.is_dir())
    unknown = sorted(set(texts.values()) - set(classes))
    if unknown:
        raise InputError(
            f"{path} has classes that the model does not know: {', '.join(unknown)}; it knows "
            f"{', '.join(classes)}"
        )
    return tuple((text, classes.index(label)) for text, label in texts.items())


def _labelled(path: Path) -> dict[str, str]:
    rows = _folder(path) if path.is_dir() else _rows(path, "text", "label")
    texts: dict[str, str] = {}
    for text, label in rows:
        if not text.strip():
            continue
        if not label.strip():
            raise InputError(f"{path}: the label of {text[:40]!r} is empty; give it one")
        if texts.setdefault(text, label) != label:
            raise InputError(
                f"{path}: {text[:40]!r} has two labels, {texts[text]} and {label}; give it one"
            )
    return texts


@dataclass(frozen=True)
class Pairs:
    """Sources and targets, split by what the sources say.

    Attributes:
        train: to learn from.
        validation: to measure on.
        fingerprint: SHA-256 of everything.
    """

    train: tuple[tuple[str, str], ...]
    validation: tuple[tuple[str, str], ...]
    fingerprint: str


def load_pairs(path: Path, validation: float = 0.1) -> Pairs:
    """Reads pairs of texts.

    Args:
        path: a CSV file with the columns ``source`` and ``target``, or a file of JSON objects
            with these keys, one a line.
        validation: part of the pairs to measure on, chosen by the hash of their source.

    Raises:
        InputError: there are no such pairs.
    """
    rows = list(dict.fromkeys(_rows(path, "source", "target")))
    if len({source for source, _ in rows}) < 2:
        raise InputError(f"{path} has too few pairs: at least two different sources are needed")
    ordered = sorted(rows, key=lambda row: (_hash(row[0]), row[1]))
    cut = max(1, round(validation * len(ordered)))
    while cut < len(ordered) - 1 and ordered[cut][0] == ordered[cut - 1][0]:
        cut += 1
    digest = hashlib.sha256(json.dumps(ordered).encode()).hexdigest()
    return Pairs(tuple(ordered[cut:]), tuple(ordered[:cut]), digest)


def _rows(path: Path, first: str, second: str) -> Iterator[tuple[str, str]]:
    if path.suffix in (".jsonl", ".ndjson", ".json"):
        yield from _json_lines(path, first, second)
    elif path.suffix in (".csv", ".tsv"):
        yield from _table(path, first, second)
    else:
        raise InputError(
            f"{path} is no .csv, .tsv or .jsonl file with the columns or keys {first} and {second}"
        )


def _folder(path: Path) -> Iterator[tuple[str, str]]:
    entries = _visible(path)
    if any(entry.is_dir() for entry in entries):
        for folder in filter(Path.is_dir, entries):
            for file in filter(Path.is_file, _visible(folder)):
                yield read_text_or_nothing(file), folder.name
        return
    by_name = [entry for entry in entries if entry.suffix == ".txt"]
    if len(by_name) > 1:
        files = {entry: entry.stem for entry in by_name}
    else:
        stems = Counter(entry.stem for entry in entries)
        files = {entry: entry.suffix[1:] for entry in entries if stems[entry.stem] > 1}
    for file, label in files.items():
        for line in read_text(file).split("\n"):
            yield line.strip(), label


def _visible(path: Path) -> list[Path]:
    return [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]


def _json_lines(path: Path, first: str, second: str) -> Iterator[tuple[str, str]]:
    # Lines end with "\n" alone: other ends that `splitlines` knows may stand in a JSON string.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            values = row[first], row[second]
            if any(isinstance(value, (dict, list, type(None))) for value in values):
                raise ValueError(f"got {json.dumps(values)}")
        except (ValueError, KeyError, TypeError, RecursionError) as damage:
            raise InputError(
                f'{path}, line {number}: expected an object with "{first}" and "{second}": {damage}'
            ) from damage
        yield str(values[0]), str(values[1])


def _table(path: Path, first: str, second: str) -> Iterator[tuple[str, str]]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    table = csv.DictReader(io.StringIO(read_text(path)), delimiter=delimiter)
    names = table.fieldnames or []
    if first not in names or second not in names:
        raise InputError(
            f"{path} must have the columns {first} and {second}, but has {', '.join(names)}"
        )
    before = csv.field_size_limit(sys.maxsize)  # a text may be longer than 128 KiB
    try:
        for row in table:
            if None in row or None in row.values():
                raise InputError(
                    f"{path}, line {table.line_num}: expected {len(names)} columns; a text with "
                    f"{'tabs' if delimiter == chr(9) else 'commas'} must stand in quotes"
                )
            yield row[first], row[second]
    except csv.Error as damage:
        raise InputError(f"{path}, line {table.line_num}: {damage}") from damage
    finally:
        csv.field_size_limit(before)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
