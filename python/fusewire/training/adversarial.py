"""Adversarial training: the loop, read from top to bottom, and sampling from what it leaves."""

from __future__ import annotations

import copy
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fusewire.data.images import Images, load_images
from fusewire.errors import InputError
from fusewire.models.gan import (
    Discriminator,
    Generator,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)
from fusewire.training.adversarial_config import GanConfig
from fusewire.training.checkpoint import load_checkpoint, save_checkpoint
from fusewire.training.devices import memory_refusals, require_device, torch_threads
from fusewire.training.grids import write_image_grid
from fusewire.training.metrics import MetricsLog, read_metrics
from fusewire.training.order import ShuffledOrder
from fusewire.training.plots import plot_losses
from fusewire.training.progress import TrainingProgress
from fusewire.training.run_directory import RunDirectory, RunResult, refuse_unusable
from fusewire.training.seeds import RandomStreams
from fusewire.training.settings import require_counts, require_seed
from fusewire.training.stopping import GracefulStop, require_finite

KIND = "gan"
_PREVIEW_IMAGES = 100


class Players:
    """Both networks, their optimisers, and the running mean of the generator."""

    def __init__(self, config: GanConfig) -> None:
        self.generator = Generator(config.model).to(config.device)
        self.discriminator = Discriminator(config.model).to(config.device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        # Each optimiser holds the parameters of one player: a move changes nobody else's weights.
        self.generator_optimizer = torch.optim.Adam(
            self.generator.parameters(), config.generator_learning_rate, config.betas, fused=True
        )
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(),
            config.discriminator_learning_rate,
            config.betas,
            fused=True,
        )
        self.models = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_average": self.average,
        }
        self.optimizers = {
            "generator": self.generator_optimizer,
            "discriminator": self.discriminator_optimizer,
        }


@memory_refusals()
def train(config: GanConfig, path: Path) -> RunResult:
    """Trains a generator and a discriminator and writes a run directory.

    Progress goes to standard output. Ctrl-C and SIGTERM finish the step and save.

    Args:
        config: the run, for instance from `fusewire.recipes.gan`.
        path: the directory to make.

    Returns:
        What was made and where.

    Raises:
        InputError: data, configuration or path cannot be used, or training diverged.
    """
    refuse_unusable(path)
    images = _load_data(config)
    require_device(config.device)
    streams = RandomStreams(config.seed)
    players = Players(config)
    with RunDirectory.create(path, KIND, config, images.fingerprint) as run:
        return _train(config, run, images, players, streams, done=0)


@memory_refusals()
def resume(path: Path, steps: int | None = None) -> RunResult:
    """Continues a run from its last checkpoint, bit for bit as if it had never stopped.

    Args:
        path: the run directory.
        steps: a new total of steps; by default the one the run was started with.

    Returns:
        What was made and where.

    Raises:
        InputError: the directory is no such run, has no checkpoint, or its data have changed.
    """
    run = RunDirectory.open(path, KIND)
    config = run.config(GanConfig)
    images = _load_data(config)
    run.require_same_data(images.fingerprint)
    require_device(config.device)
    streams = RandomStreams(config.seed)
    players = Players(config)
    checkpoint = load_checkpoint(run.checkpoint_folder, players.models, players.optimizers, streams)
    if steps is not None:
        if steps < checkpoint.step:
            raise InputError(f"steps: {path} has done {checkpoint.step} already, got {steps}")
        config = dataclasses.replace(config, steps=steps)
        run = run.reconfigured(config)
    return _train(config, run, images, players, streams, done=checkpoint.step)


def discriminator_move(config: GanConfig, players: Players, real: Tensor) -> tuple[Tensor, Tensor]:
    """Updates the discriminator on real images and as many generated ones.

    Returns:
        The loss without the penalty, and the logits on real images.
    """
    with torch.no_grad():  # the generator does not move now
        fake = players.generator(players.generator.noise(len(real)))
    real.requires_grad_(config.penalty > 0)
    real_logits = players.discriminator(real)
    loss = discriminator_loss(real_logits, players.discriminator(fake), config.real_target)
    total = loss
    if config.penalty > 0:
        total = loss + config.penalty * gradient_penalty(real_logits, real)
    players.discriminator_optimizer.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    players.discriminator_optimizer.step()
    return loss.detach(), real_logits.detach()


def generator_move(config: GanConfig, players: Players, batch: int) -> tuple[Tensor, Tensor]:
    """Updates the generator against the discriminator as it stands.

    Returns:
        The loss, and the logits on the generated images.
    """
    players.discriminator.requires_grad_(False)
    fake_logits = players.discriminator(players.generator(players.generator.noise(batch)))
    loss = generator_loss(fake_logits, config.loss)
    players.generator_optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    players.generator_optimizer.step()
    players.discriminator.requires_grad_(True)
    return loss.detach(), fake_logits.detach()


def _train(
    config: GanConfig,
    run: RunDirectory,
    images: Images,
    players: Players,
    streams: RandomStreams,
    *,
    done: int,
) -> RunResult:
    pixels = torch.tensor(images.pixels, device=config.device)
    order = ShuffledOrder(len(pixels), config.batch_size, config.seed)
    measured: dict[str, float] = {}
    step = done
    saved = done or None  # a run that is stopped before its first step is saved as well
    with (
        MetricsLog(run.metrics_path, resume_step=done) as log,
        TrainingProgress("gan", config.steps, done, "images", config.batch_size) as progress,
        GracefulStop() as stop,
        torch_threads(config.threads),
    ):
        while step < config.steps and not stop.requested:
            real = pixels[torch.from_numpy(order.batch(step))] / 255
            d_loss, real_logits = discriminator_move(config, players, real)
            g_loss, fake_logits = generator_move(config, players, config.batch_size)
            _update_average(players, config.average_decay, step)
            step += 1

            if step % config.log_every == 0 or step == config.steps:
                losses = {"discriminator": d_loss.item(), "generator": g_loss.item()}
                require_finite(losses, step, run.checkpoint_folder)
                measured = {
                    "discriminator_loss": losses["discriminator"],
                    "generator_loss": losses["generator"],
                    "real_probability": real_logits.sigmoid().mean().item(),
                    "fake_probability": fake_logits.sigmoid().mean().item(),
                }
                log.write(step, **measured, time=time.time())
                progress.update(step, losses)
            if step % config.checkpoint_every == 0:
                _save(run, step, players, streams)
                saved = step
    if saved != step:
        _save(run, step, players, streams)
    return RunResult(
        path=run.path,
        made={
            "samples": run.sample_image_path,
            "losses": run.losses_path,
            "metrics": run.metrics_path,
            "checkpoint": run.checkpoint_folder,
        },
        step=step,
        metrics=measured,
        stopped_early=step < config.steps,
    )


@memory_refusals()
def sample(path: Path, output: Path, count: int = _PREVIEW_IMAGES, seed: int = 0) -> Path:
    """Draws images from a trained generator and writes them as one PNG.

    Args:
        path: the run directory.
        output: the PNG to write.
        count: how many images.
        seed: the same seed gives the same images.

    Returns:
        `output`.

    Raises:
        InputError: the directory is no such run, is damaged, or the PNG cannot be written.
    """
    write_image_grid(generate(path, count, seed), output)
    return output


@memory_refusals()
def generate(path: Path, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draws images from a trained generator.

    Args:
        path: the run directory.
        count: how many images.
        seed: the same seed gives the same images.

    Returns:
        Images, (count, channels, height, width).

    Raises:
        InputError: the directory is no such run or is damaged.
    """
    require_counts(count=count)
    require_seed(seed)
    run = RunDirectory.open(path, KIND)
    generator = Generator(run.config(GanConfig).model)
    load_checkpoint(run.checkpoint_folder, {"generator_average": generator})
    return _draw(generator, count, seed)


def _draw(generator: Generator, count: int, seed: int) -> NDArray[np.uint8]:
    source = torch.Generator().manual_seed(seed)  # leaves the streams of the run alone
    with torch.inference_mode():
        images: Tensor = generator(generator.noise(count, source))
    return np.asarray((images * 255).round().to("cpu", torch.uint8).numpy())


def _update_average(players: Players, decay: float, step: int) -> None:
    # A short memory at first, so that the random start is soon forgotten.
    decay = min(decay, (1 + step) / (10 + step))
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        update(list(players.average.parameters()), list(players.generator.parameters()), 0)


def _save(run: RunDirectory, step: int, players: Players, streams: RandomStreams) -> None:
    save_checkpoint(run.checkpoint_folder, step, players.models, players.optimizers, {}, streams)
    preview = _draw(players.average, _PREVIEW_IMAGES, seed=0)
    write_image_grid(preview, run.sample_image_path)
    plot_losses(
        read_metrics(run.metrics_path),
        run.losses_path,
        "Adversarial training",
        {"discriminator_loss": "discriminator", "generator_loss": "generator"},
    )


def _load_data(config: GanConfig) -> Images:
    images = load_images(config.data)
    if images.shape != config.model.image_shape:
        raise InputError(
            f"{config.data} holds images of shape {images.shape}, "
            f"but the model is made for {config.model.image_shape}"
        )
    return images
