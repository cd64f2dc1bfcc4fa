"""The loop of sequence models, read from top to bottom, whatever they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fusewire.training.run_directory import RunDirectory, RunResult
from fusewire.training.sequence.learner import SequenceLearner
from fusewire.training.session import Session


class Task(Protocol):
    """What is learnt: batches, an objective, and how well it goes.

    Attributes:
        gradient_clip: largest norm of all gradients together.
        half: whether activations are bfloat16, by PyTorch's autocast.
        validate_every: steps between measurements.
        save_every: steps between checkpoints.
    """

    gradient_clip: float
    half: bool
    validate_every: int
    save_every: int

    def batch(self, step: int, rows: slice) -> Any:
        """The given rows of the batch of a step, counted from 0; the same whenever asked for."""

    def loss(
        self, model: nn.Module, batch: Any, carried: Any
    ) -> tuple[Tensor, dict[str, Tensor], Any]:
        """The loss, what else was measured, and the state to carry on (None for none)."""

    def before_step(self, step: int, learner: SequenceLearner) -> dict[str, float]:
        """Sets learning rates, and what else a schedule moves; returns what of it to log."""

    def validate(self, model: Any) -> dict[str, float]:
        """Measures the model on what it has not seen; in every process alike."""

    def finish(self, model: Any, run: RunDirectory) -> dict[str, Path]:
        """Writes samples into the run directory; returns label to path.

        All processes call it, because a model may be spread over all; the first one writes.
        """


def fit(session: Session, learner: SequenceLearner, task: Task) -> RunResult:
    """Makes the steps of a run.

    Args:
        session: around the loop, entered.
        learner: what learns.
        task: what it learns.

    Returns:
        What the run left behind.
    """
    processes, optimizer, carried = learner.processes, learner.optimizer, learner.carried
    for step in session.steps():
        scheduled = task.before_step(step, learner)
        optimizer.zero_grad(set_to_none=True)
        seen = []
        for part in learner.parts:
            batch = task.batch(step - 1, part)
            with torch.autocast(processes.device.type, torch.bfloat16, enabled=task.half):
                loss, measured, state = task.loss(learner.shared, batch, carried.get(part))
            (loss / len(learner.parts)).backward()  # type: ignore[no-untyped-call]
            carried.set(part, state)
            seen.append({"loss": loss} | measured)
        norm = nn.utils.clip_grad_norm_(learner.model.parameters(), task.gradient_clip)
        optimizer.step()

        last = session.ends()
        losses = processes.mean({name: _mean([each[name] for each in seen]) for name in seen[0]})
        others = {"gradient_norm": _number(norm)} | scheduled
        if last or step % task.validate_every == 0:
            losses |= task.validate(learner.model)
        session.log(losses, **others)
        if last or step % task.save_every == 0:
            session.save()
    made = task.finish(learner.model, session.run)
    return session.result(made)


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack([value.detach() for value in values]).mean()


def _number(value: Tensor) -> float:
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.item()
