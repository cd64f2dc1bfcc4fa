"""Run directories: complete or absent, and clear words when one cannot be opened."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from fusewire.config import config_from_json, config_to_json
from fusewire.errors import InputError
from fusewire.training import run_directory as run_directory_module
from fusewire.training.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Small:
    kind: Literal["small"] = "small"
    width: int = 3


@dataclasses.dataclass(frozen=True)
class Large:
    kind: Literal["large"]
    widths: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Run:
    data: Path | None
    model: Small | Large
    pair: tuple[float, float] = (0.5, 1.0)
    name: str = "a"
    fast: bool = False


FULL = Run(data=Path("/data"), model=Large("large", (1, 2)))


def test_create_and_open(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with RunDirectory.create(path, "gan", FULL, "sha256:12") as made:
        opened = RunDirectory.open(path, kind="gan")
    assert opened == made
    assert opened.config(Run) == FULL
    description = json.loads((path / "config.json").read_text())
    assert {"fusewire", "torch", "kind", "data_fingerprint", "config"} == set(description)
    opened.require_same_data("sha256:12")
    with pytest.raises(InputError, match="data has changed"):
        opened.require_same_data("sha256:13")


def test_paths_that_cannot_become_a_run(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for path, reason in [
        (tmp_path, "is not empty"),
        (file, "is a file"),
        (file / "below", "cannot write the run directory"),
    ]:
        with pytest.raises(InputError, match=reason), RunDirectory.create(path, "gan", FULL, ""):
            pass
    assert sorted(tmp_path.iterdir()) == [file]


def test_refused_writing_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, _content: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run_directory_module, "replace_file", refuse)
    with (
        pytest.raises(InputError, match="Permission denied"),
        RunDirectory.create(tmp_path / "a" / "b", "gan", FULL, ""),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def fail_in(path: Path, checkpoint: str = "", beside: Path | None = None) -> None:
    with (
        contextlib.suppress(KeyboardInterrupt),
        RunDirectory.create(path, "gan", FULL, "") as run,
    ):
        run.metrics_path.write_text("")
        if checkpoint:
            (run.checkpoint_folder / checkpoint).mkdir(parents=True)
        if beside:
            beside.mkdir()
        raise KeyboardInterrupt


def test_a_run_that_fails_before_it_saves_leaves_nothing_behind(tmp_path: Path) -> None:
    fail_in(tmp_path / "a" / "b", checkpoint="step-1.tmp")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    fail_in(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_run_that_fails_later_stays(tmp_path: Path) -> None:
    fail_in(tmp_path / "run", checkpoint="step-5")
    assert RunDirectory.open(tmp_path / "run").config(Run) == FULL


def test_a_failing_run_leaves_others_alone(tmp_path: Path) -> None:
    fail_in(tmp_path / "runs" / "first", beside=tmp_path / "runs" / "second")
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs" / "second"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "has no config.json"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("{}", "is damaged"),
        ('{"kind": "language", "data_fingerprint": ""}', 'expected "gan"'),
    ],
)
def test_directories_that_are_not_runs(tmp_path: Path, content: str | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=reason):
        RunDirectory.open(tmp_path, kind="gan")


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        RunDirectory.open(tmp_path / "missing")


@pytest.mark.parametrize("config", [FULL, Run(data=None, model=Small(width=9), fast=True)])
def test_configurations_survive_json(config: Run) -> None:
    assert config_from_json(Run, json.loads(json.dumps(config_to_json(config)))) == config


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fast": 1}, "config.fast: expected bool, got 1"),
        ({"pair": [1.0]}, "config.pair: expected a list of 2 values"),
        ({"pair": [1.0, "x"]}, r"config.pair\[1\]: expected float, got 'x'"),
        ({"model": {"kind": "small", "width": 10**30}}, "width: expected an integer of 64 bits"),
        ({"colour": 1}, "unknown fields: colour"),
        ({"model": {"kind": "small", "width": "w"}}, "config.model.width: expected int"),
        ({"model": {"kind": "huge"}}, "expected one of 'small'"),
    ],
)
def test_edited_configurations_are_checked(change: dict[str, object], reason: str) -> None:
    value = dict(config_to_json(FULL)) | change
    with pytest.raises(InputError, match=reason):
        config_from_json(Run, value)


def test_one_process_trains_in_a_directory(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", "gan", FULL, "data") as run:
        program = (
            "import sys, pathlib; from fusewire.training.run_directory import RunDirectory\n"
            "with RunDirectory.open(pathlib.Path(sys.argv[1])).held(): print('held')"
        )
        command = [sys.executable, "-c", program, str(run.path)]
        with run.held():
            other = subprocess.run(command, capture_output=True, text=True, check=False)
            assert other.returncode != 0
            assert f"another process is training in {run.path}" in other.stderr
            with pytest.raises(InputError, match="another process is training"), run.held():
                pass
        assert (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout == "held\n"
        )
        assert [each.name for each in run.path.iterdir()] == ["config.json"]
