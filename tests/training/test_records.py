"""What benches write down can be read by everybody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benches.training.record import Record

RECORDS = Path(__file__).parents[2] / "benches" / "record"


def refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


@pytest.mark.parametrize("path", sorted(RECORDS.glob("*.json")), ids=lambda path: path.stem)
def test_records_are_strict_json(path: Path) -> None:
    assert json.loads(path.read_text(), parse_constant=refuse)


def test_numbers_that_are_none_are_written_as_null(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.json")
    record.once("one seed", lambda: {"accuracy": 0.5, "deviations": [float("nan"), 1.0]})
    written = json.loads((tmp_path / "record.json").read_text(), parse_constant=refuse)
    assert written["results"] == {"one seed": {"accuracy": 0.5, "deviations": [None, 1.0]}}
