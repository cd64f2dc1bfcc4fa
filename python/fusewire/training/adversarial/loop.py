"""Adversarial training: the loop, read from top to bottom."""

from __future__ import annotations

import dataclasses
import json
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fusewire.config import config_to_json
from fusewire.models.gan import Draws
from fusewire.training.adversarial.collapse import watch_diversity
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import Samples, load_samples
from fusewire.training.adversarial.moves import discriminator_move, generator_move
from fusewire.training.adversarial.players import Players
from fusewire.training.adversarial.samples import (
    FORMAT,
    KIND,
    PREVIEW,
    draw,
    natural,
    preview_count,
    preview_path,
    write_samples,
)
from fusewire.training.devices import memory_refusals
from fusewire.training.durable import replace_file_or_refuse
from fusewire.training.order import ShuffledOrder
from fusewire.training.processes import Processes
from fusewire.training.run_directory import RunDirectory, RunResult
from fusewire.training.session import Appearance, Session, agree_on_path, new_run, restore

# Dense networks on samples smaller than this keep one core busy and no more: waking a second
# thread for each of the hundred small operators of a step costs more than it saves.
_SIZE_FOR_THREADS = 4096


@memory_refusals()
def train(config: GanConfig, path: Path) -> RunResult:
    """Trains a generator and a discriminator and writes a run directory.

    Progress goes to standard output. Ctrl-C and SIGTERM finish the step and save. Started by
    `torchrun`, its processes train together.

    Args:
        config: the run, for instance from `fusewire.recipes.gan`.
        path: the directory to make.

    Returns:
        What was made and where.

    Raises:
        InputError: data, configuration or path cannot be used, or training diverged.
    """
    processes = Processes(config.device)
    path = agree_on_path(processes, path)
    samples = load_samples(config.data, config.model.head)
    players = Players(config, samples.format, processes)
    with new_run(processes, path, KIND, config, samples.fingerprint) as run:
        form = json.dumps(config_to_json(samples.format)).encode()
        processes.by_main(lambda: replace_file_or_refuse(run.path / FORMAT, form))
        return _train(config, run, samples, players, done=0)


@memory_refusals()
def resume(path: Path, steps: int | None = None) -> RunResult:
    """Continues a run from its last checkpoint, bit for bit as if it had never stopped.

    Args:
        path: the run directory.
        steps: a new total of steps; by default the one the run was started with.

    Returns:
        What was made and where.

    Raises:
        InputError: the directory is no such run, is finished, has no checkpoint, or its data have
            changed.
    """
    run = RunDirectory.open(path, KIND)
    config = run.config(GanConfig)
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    processes = Processes(config.device)
    samples = load_samples(config.data, config.model.head)
    run.require_same_data(samples.fingerprint)
    players = Players(config, samples.format, processes)
    done = restore(players, run, config)
    return _train(config, run, samples, players, done)


def _train(
    config: GanConfig, run: RunDirectory, samples: Samples, players: Players, done: int
) -> RunResult:
    batch = config.batch
    device = players.processes.device
    data = dataclasses.replace(samples, stored=samples.stored.to(device))
    updates = config.discriminator_steps
    order = ShuffledOrder(len(data), batch, config.seed)

    def next_batch(number: int) -> tuple[Tensor, Tensor | None]:
        indices = torch.from_numpy(order.batch(number)[players.rows])
        labels = None
        if config.conditioning and data.labels is not None:
            labels = data.labels[indices].to(device)
        return data.at(indices.to(device)), labels

    appearance = Appearance(
        label="gan",
        title="Adversarial training",
        curves={"discriminator_loss": "discriminator", "generator_loss": "generator"},
        unit="samples",
        per_step=batch,
    )
    with Session(run, players, config, appearance, done, _threads(config, data)) as session:
        for step in session.steps():
            draws = Draws(config.seed, step, batch, players.rows, device)
            players.set_rates(config.rate_at(step))
            players.set_temperature(config.temperature_at(step))
            for update in range(updates):
                number = (step - 1) * updates + update
                real, labels = next_batch(number)
                discriminator_loss, on_real = discriminator_move(
                    config, players, real, labels, draws, number
                )
            generator_loss, on_fake = generator_move(config, players, real, labels, draws)
            players.update_average(config.average_decay, step)

            last = session.ends()
            if last or step % config.log_every == 0:
                measured = players.processes.mean(
                    {
                        "discriminator_loss": discriminator_loss,
                        "generator_loss": generator_loss,
                        "real_probability": on_real.sigmoid().mean(),
                        "fake_probability": on_fake.sigmoid().mean(),
                    }
                )
                session.log(measured, time=time.time())
            if last or step % config.checkpoint_every == 0:
                session.save()
                players.processes.by_main(partial(_show, config, run, data, players, step))
        if not session.moved:
            players.processes.by_main(partial(_show, config, run, data, players, done))
    return session.result({"samples": preview_path(run, samples.format)})


def _show(config: GanConfig, run: RunDirectory, data: Samples, players: Players, step: int) -> None:
    drawn = draw(players.average, PREVIEW, seed=0)
    path = preview_path(run, data.format)
    shown = natural(drawn[: preview_count(data.format)], data.format)
    write_samples(shown, data.format, path)
    if config.frames:
        frame = run.path / "frames" / f"step-{step:09d}{path.suffix}"
        frame.parent.mkdir(exist_ok=True)
        write_samples(shown, data.format, frame)
    some = torch.arange(min(PREVIEW, len(data)), device=data.stored.device)
    if len(some) > 1:
        watch_diversity(data.at(some).cpu(), drawn, step)


def _threads(config: GanConfig, data: Samples) -> int | None:
    small = config.model.flat and torch.Size(data.format.shape).numel() < _SIZE_FOR_THREADS
    return config.threads or (1 if small else None)
