"""What a run has around its steps, whatever it trains: log, progress, signals and checkpoints."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from torch import nn
from torch.optim import Optimizer

from fusewire.config import config_to_json
from fusewire.errors import InputError
from fusewire.training.checkpoint import load_checkpoint, save_checkpoint, set_aside_after
from fusewire.training.devices import torch_threads
from fusewire.training.metrics import MetricsLog, read_metrics
from fusewire.training.plots import plot_losses
from fusewire.training.processes import Processes
from fusewire.training.progress import TrainingProgress
from fusewire.training.run_directory import RunDirectory, RunResult, refuse_unusable
from fusewire.training.seeds import RandomStreams
from fusewire.training.stopping import GracefulStop, require_sane
from fusewire.training.tensorboard import TensorBoardLog

_PLOT_EVERY = 10.0  # seconds; a plot takes longer than many steps of a small network


class Learner(Protocol):
    """Everything that a step changes, and so everything that a checkpoint keeps."""

    processes: Processes
    streams: RandomStreams

    def models(self) -> Mapping[str, nn.Module]:
        """By name; all processes ask for them together."""

    def optimizers(self) -> Mapping[str, Optimizer]:
        """By name."""


class RunConfig(Protocol):
    """What every configuration of a run says beside what it trains."""

    @property
    def steps(self) -> int:
        """The step at which the run ends."""

    @property
    def tensorboard(self) -> bool:
        """Whether the log is written for TensorBoard too."""


@dataclass(frozen=True)
class Appearance:
    """How a run looks to a person.

    Attributes:
        label: what is trained, in a word or two.
        title: stands above the plot of the losses.
        curves: measured values to plot, to their names in the legend.
        unit: what `per_step` counts, such as "images" or "tokens".
        per_step: how many of them one step takes.
    """

    label: str
    title: str
    curves: Mapping[str, str]
    unit: str
    per_step: int


@contextlib.contextmanager
def new_run(
    processes: Processes, path: Path, kind: str, config: object, data_fingerprint: str
) -> Iterator[RunDirectory]:
    """Makes a run directory, once, and gives it to every process; see `RunDirectory.create`."""
    with contextlib.ExitStack() as stack:
        create = RunDirectory.create(path, kind, config, data_fingerprint)
        made = processes.by_main(lambda: stack.enter_context(create))
        yield made or RunDirectory(path, kind, config_to_json(config), data_fingerprint)


def agree_on_path(processes: Processes, path: Path) -> Path:
    """The run directory that the first process wants, refused early where it cannot be made."""
    path = processes.agreed(path)
    processes.by_main(lambda: refuse_unusable(path))
    return path


def restore(learner: Learner, run: RunDirectory, config: RunConfig) -> int:
    """Puts the newest checkpoint of a run into its learner.

    Args:
        learner: freshly built.
        run: the run.
        config: its configuration from here on, which is written down.

    Returns:
        How many steps it has done.

    Raises:
        InputError: there is no undamaged checkpoint, nothing is left to do, or another process
            trains there.
    """
    with contextlib.ExitStack() as stack:
        learner.processes.by_main(lambda: stack.enter_context(run.held()))
        return _restore(learner, run, config)


def _restore(learner: Learner, run: RunDirectory, config: RunConfig) -> int:
    done = load_checkpoint(
        run.checkpoint_folder,
        learner.models(),
        learner.optimizers(),
        learner.streams,
        learner.processes.rank,
    ).step
    # One that was killed between its last checkpoint and its samples makes those.
    if done > config.steps or done == config.steps == run.ended:
        raise InputError(
            f"{run.path} is finished: it has done {done} steps of {config.steps}; give more steps "
            "to go on"
        )
    learner.processes.by_main(lambda: run.rewrite_config(config))
    learner.processes.by_main(lambda: set_aside_after(run.checkpoint_folder, done))
    return done


class Session:
    """The time in which a run makes its steps; a context manager around the loop.

    Args:
        run: where everything is written.
        learner: what is saved.
        config: the run.
        appearance: what a person sees.
        done: steps that the learner has made before.
        threads: CPU threads of PyTorch meanwhile; None leaves them as they are.
    """

    def __init__(
        self,
        run: RunDirectory,
        learner: Learner,
        config: RunConfig,
        appearance: Appearance,
        done: int,
        threads: int | None,
    ) -> None:
        self.run = run
        self.measured: dict[str, float] = {}
        self._learner, self._processes = learner, learner.processes
        self._appearance, self._threads = appearance, threads
        self._total, self._tensorboard = config.steps, config.tensorboard
        self._done = self.step = done
        self._ended = False
        self._plotted = -math.inf
        self._unwritten: InputError | None = None

    def __enter__(self) -> Session:
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            shown, main = self._appearance, self._processes.is_main
            self._processes.by_main(lambda: enter(self.run.held()))
            enter(torch_threads(self._threads))
            self._stop = enter(GracefulStop())
            self._logs: list[MetricsLog | TensorBoardLog] = []
            self._progress = TrainingProgress(
                shown.label, self._total, self._done, shown.unit, shown.per_step, silent=not main
            )
            self._processes.by_main(lambda: self._open_logs(stack))
            enter(self._progress)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if kind is None:
            self._processes.wait()

    def steps(self) -> Iterator[int]:
        """Counts the steps from 1, or from where the run stood, until `ends` has said yes."""
        while self.step < self._total and not self._ended:
            self.step += 1
            yield self.step

    @property
    def moved(self) -> bool:
        """Whether a step was made; not so where only the samples of the last one were missing."""
        return self.step > self._done

    def ends(self) -> bool:
        """Whether this step is the last one: of the run, or because a signal came to a process.

        To be asked once in each step, by all processes.
        """
        asked = self._stop.requested or self._unwritten is not None
        self._ended = self._processes.any(asked) or self.step == self._total
        return self._ended

    def log(self, shown: Mapping[str, float], **others: float) -> None:
        """Writes what a step has measured.

        Args:
            shown: losses by name, which must be numbers and not absurd, and are shown live.
            others: what is only written.

        Raises:
            InputError: training has diverged.
        """
        require_sane(shown, self.step, self.run.checkpoint_folder)
        self.measured |= shown
        try:
            for log in self._logs:
                log.write(self.step, **shown, **others)
        except InputError as refusal:
            if self._processes.count == 1:
                raise
            self._unwritten = refusal  # the others learn of it when all ask whether the run ends
        self._progress.update(self.step, self.measured)

    def save(self) -> None:
        """Writes a checkpoint and, at the end or where the last is old, the plot of the losses.

        Raises:
            InputError: weights are no longer finite, or the disk refuses.
        """
        learner, folder = self._learner, self.run.checkpoint_folder
        save_checkpoint(
            folder,
            self.step,
            learner.models(),
            learner.optimizers(),
            {},
            learner.streams,
            processes=self._processes,
        )
        self._processes.by_main(self._show)

    def _open_logs(self, stack: contextlib.ExitStack) -> None:
        enter = stack.enter_context
        self._logs.append(enter(MetricsLog(self.run.metrics_path, resume_step=self._done)))
        if self._tensorboard:
            self._logs.append(enter(TensorBoardLog(self.run.path, resume_step=self._done)))

    def _show(self) -> None:
        if self._unwritten is not None:
            raise self._unwritten
        if not self._ended and time.monotonic() - self._plotted < _PLOT_EVERY:
            return
        plot_losses(
            read_metrics(self.run.metrics_path),
            self.run.losses_path,
            self._appearance.title,
            self._appearance.curves,
        )
        self._plotted = time.monotonic()

    def result(self, made: Mapping[str, Path]) -> RunResult:
        """What the run has left behind.

        Args:
            made: what a person may want to look at first, label to path.
        """
        if not self.moved:
            self._processes.by_main(self._show)
        self._processes.by_main(lambda: self.run.note_end(self.step))
        return RunResult(
            path=self.run.path,
            made={
                **made,
                "losses": self.run.losses_path,
                "metrics": self.run.metrics_path,
                "checkpoint": self.run.checkpoint_folder,
            },
            step=self.step,
            metrics=self.measured,
            stopped_early=self.step < self._total,
        )
