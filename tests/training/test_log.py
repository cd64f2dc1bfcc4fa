"""Metrics, plots, progress lines, seeds and stopping."""

from __future__ import annotations

import io
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from fusewire.errors import InputError
from fusewire.training.metrics import MetricsLog, read_metrics
from fusewire.training.plots import plot_losses
from fusewire.training.progress import TrainingProgress
from fusewire.training.seeds import RandomStreams
from fusewire.training.stopping import GracefulStop, require_sane


def test_log_is_readable_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write(1, loss=0.1, speed=float("inf"))
        assert read_metrics(path) == [{"step": 1, "loss": 0.1, "speed": None}]
        log.write(2, loss=float("nan"))
    assert read_metrics(path)[1] == {"step": 2, "loss": None}


def test_resumed_log_drops_rows_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 5, "loss": 0.5}\n{"step": 6, "lo')
    with MetricsLog(path, resume_step=1) as log:
        log.write(2, loss=0.9)
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


def test_log_that_is_not_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('nonsense\n{"step": 5, "loss": 0.5}\n')
    with pytest.raises(InputError, match="line 1"):
        read_metrics(path)
    with pytest.raises(InputError, match="cannot read"):
        read_metrics(tmp_path / "missing")


@pytest.mark.parametrize("count", [0, 1, 20, 1000])
def test_losses_are_plotted(tmp_path: Path, count: int) -> None:
    rows = [{"step": step, "loss": 1 / (1 + step), "gap": None} for step in range(count)]
    path = tmp_path / "losses.png"
    plot_losses(rows, path, "a run", {"loss": "training", "gap": "never there"})
    with Image.open(path) as plot:
        assert plot.size == (960, 540)
    assert list(tmp_path.iterdir()) == [path]


def test_progress_in_a_log_file_is_plain_lines() -> None:
    output = io.StringIO()
    with TrainingProgress("gan", 4, unit="images", console=Console(file=output)) as progress:
        for step in range(1, 5):
            progress.update(step, {"loss": 0.5})
    lines = output.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("gan 4/4 loss 0.500 · ")
    assert lines[0].endswith("images/s")


def test_progress_in_a_terminal_shows_the_loss() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=120)
    with TrainingProgress("gan", 2, console=console) as progress:
        progress.update(2, {"loss": 0.25})
    assert "loss 0.250" in output.getvalue()


def test_streams_are_reproducible_separate_and_restorable() -> None:
    def draw(streams: RandomStreams) -> tuple[float, float, float]:
        return random.random(), float(streams.numpy.random()), float(torch.rand(()))

    streams = RandomStreams(3)
    state = streams.state()
    first = draw(streams)
    assert draw(RandomStreams(3)) == first
    assert draw(RandomStreams(4)) != first
    streams.restore(state)  # type: ignore[arg-type]
    assert draw(streams) == first
    torch.rand(10)
    assert np.isclose(RandomStreams(3).numpy.random(), first[1], rtol=0, atol=0)


def test_signals_become_a_request() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with GracefulStop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_divergence_is_told(tmp_path: Path) -> None:
    require_sane({"loss": 1.0}, 3, tmp_path)
    with pytest.raises(InputError, match=r"loss is nan at step 3; .*no checkpoint had been saved"):
        require_sane({"loss": float("nan")}, 3, tmp_path)
