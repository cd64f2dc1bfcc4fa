"""The adversarial loop: who moves when, exact resume, kill, bad input, sampling."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fusewire.errors import InputError
from fusewire.models.gan import Draws, Generator, MlpConfig, Penalty
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import DataConfig, SampleFormat
from fusewire.training.adversarial.loop import resume, train
from fusewire.training.adversarial.moves import discriminator_move, generator_move
from fusewire.training.adversarial.players import Players
from fusewire.training.adversarial.samples import TrainedGenerator, sample
from fusewire.training.checkpoint import CheckpointWarning, checkpoint_steps, load_checkpoint
from fusewire.training.metrics import read_metrics
from fusewire.training.order import ShuffledOrder
from fusewire.training.processes import Processes

SMALL = MlpConfig(noise_size=6, hidden_sizes=(8, 8))
FORM = SampleFormat("images", (3, 4, 5))


@pytest.fixture
def config(tmp_path: Path) -> GanConfig:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 3, 4, 5), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", pixels)
    return GanConfig(
        data=DataConfig("images", tmp_path / "data.npz"),
        model=SMALL,
        penalties=(Penalty("real", 0.3),),
        steps=6,
        batch=4,
        log_every=1,
        checkpoint_every=4,
        threads=1,
    )


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in module.parameters()]


def unchanged(module: torch.nn.Module, before: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(a, b) for a, b in zip(weights(module), before, strict=True)]


def losses(path: Path) -> list[tuple[object, ...]]:
    rows = read_metrics(path / "metrics.jsonl")
    return [(row["step"], row["discriminator_loss"], row["generator_loss"]) for row in rows]


def make_players(config: GanConfig) -> Players:
    torch.manual_seed(0)
    return Players(config, FORM, Processes("cpu"))


def test_each_move_changes_one_player_only(config: GanConfig) -> None:
    players, real = make_players(config), torch.rand(4, 3, 4, 5)
    draws = Draws(0, 1, batch=4)
    g, d = weights(players.generator), weights(players.discriminator)
    discriminator_move(config, players, real, None, draws, 0)
    assert all(unchanged(players.generator, g))
    assert not any(unchanged(players.discriminator, d))
    assert all(weight.grad is None for weight in players.generator.parameters())

    d = weights(players.discriminator)
    gradients = [weight.grad.clone() for weight in players.discriminator.parameters()]
    generator_move(config, players, real, None, draws)
    assert not any(unchanged(players.generator, g))
    assert all(unchanged(players.discriminator, d))
    for weight, gradient in zip(players.discriminator.parameters(), gradients, strict=True):
        assert torch.equal(weight.grad, gradient), "the generator's move left a gradient behind"
        assert weight.requires_grad


def test_logits_reach_the_loss_as_they_are(config: GanConfig) -> None:
    # The example put a sigmoid in front of a loss that has one.
    config = dataclasses.replace(config, penalties=())
    players, real = make_players(config), torch.rand(4, 3, 4, 5)
    with torch.no_grad():
        for weight in players.discriminator.parameters():
            weight.mul_(20)  # so that its logits are no probabilities

    def judge(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            fake = players.generator(Draws(0, step, 4).normal(players.generator.noise_size))
            return players.discriminator(real), players.discriminator(fake)

    on_real, on_fake = judge(1)
    assert all(logits.abs().max() > 1 for logits in (on_real, on_fake))
    loss, logits = discriminator_move(config, players, real, None, Draws(0, 1, 4), 0)
    torch.testing.assert_close(logits, on_real)
    torch.testing.assert_close(loss, players.loss.discriminator(on_real, on_fake))

    _, on_fake = judge(2)
    assert on_fake.abs().max() > 1
    loss, logits = generator_move(config, players, real, None, Draws(0, 2, 4))
    torch.testing.assert_close(logits, on_fake)
    torch.testing.assert_close(loss, players.loss.generator(on_fake))


def test_optimizers_hold_the_parameters_of_one_player_each(config: GanConfig) -> None:
    players = make_players(config)
    for optimizer, module in [
        (players.generator_optimizer, players.generator),
        (players.discriminator_optimizer, players.discriminator),
    ]:
        held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        assert held == {id(weight) for weight in module.parameters()}
        assert optimizer.param_groups[0]["betas"][0] <= 0.5, "momentum makes the game oscillate"


def test_discriminator_learns_to_tell(config: GanConfig) -> None:
    config = dataclasses.replace(config, penalties=(), discriminator_learning_rate=0.01)
    players, real = make_players(config), torch.rand(4, 3, 4, 5)
    history = [
        discriminator_move(config, players, real, None, Draws(0, step, 4), step)[0].item()
        for step in range(60)
    ]
    assert history[-1] < 0.8 * history[0]


def test_generator_learns_to_deceive(config: GanConfig) -> None:
    config = dataclasses.replace(config, generator_learning_rate=0.01)
    players, real = make_players(config), torch.rand(4, 3, 4, 5)
    history = [
        generator_move(config, players, real, None, Draws(0, step, 4))[0].item()
        for step in range(60)
    ]
    assert history[-1] < 0.8 * history[0]


def test_rates_shrink_towards_the_last_one(config: GanConfig) -> None:
    config = dataclasses.replace(config, last_rate=0.2, steps=4)
    assert [round(config.rate_at(step), 6) for step in (1, 3, 5)] == [1, 0.6, 0.2]
    players = make_players(config)
    players.set_rates(config.rate_at(3))
    both = players.generator_optimizer, players.discriminator_optimizer
    asked = config.generator_learning_rate, config.discriminator_learning_rate
    for optimizer, rate in zip(both, asked, strict=True):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.6 * rate)


def test_every_epoch_shows_every_image_once() -> None:
    order = ShuffledOrder(count=10, batch_size=4, seed=3)
    seen = np.concatenate([order.batch(step) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    again = ShuffledOrder(count=10, batch_size=4, seed=3)
    assert np.array_equal(again.batch(4), order.batch(4))  # without the steps before
    assert sorted(ShuffledOrder(2, 5, 0).batch(0)[:4]) == [0, 0, 1, 1]


def test_a_run_learns_from_every_sample_of_the_file(
    config: GanConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The example used its images before they were read, and made them all part of its graph.
    seen = []

    def watch(config: GanConfig, players: Players, real: torch.Tensor, *others: Any) -> Any:
        seen.append(real.detach().clone())
        return discriminator_move(config, players, real, *others)

    monkeypatch.setattr("fusewire.training.adversarial.loop.discriminator_move", watch)
    train(config, tmp_path / "run")
    assert [len(real) for real in seen] == [config.batch] * config.steps
    pixels = torch.from_numpy(np.load(tmp_path / "data.npz")["arr_0"]) / 255
    apart = (torch.cat(seen)[:, None] - pixels).abs().amax((2, 3, 4))
    assert bool((apart.amin(1) < 1e-6).all())
    places = apart.argmin(1).tolist()
    assert sorted(places[:11]) == sorted(places[11:22]) == list(range(11))


def test_noise_is_that_of_the_seed_and_of_the_step(
    config: GanConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = Players.generate

    def noise_of(seed: int, name: str) -> torch.Tensor:
        drawn = []

        def watch(players: Players, noise: torch.Tensor, labels: None) -> Any:
            drawn.append(noise)
            return generate(players, noise, labels)

        monkeypatch.setattr(Players, "generate", watch)
        train(dataclasses.replace(config, seed=seed), tmp_path / name)
        return torch.cat(drawn)

    first, again, other = noise_of(0, "first"), noise_of(0, "again"), noise_of(1, "other")
    assert torch.equal(first, again)
    # Each row of each move of either run is another.
    rows = torch.cat((first, other))
    assert len(rows) == 2 * config.steps * 2 * config.batch
    assert len(rows.unique(dim=0)) == len(rows)


def test_weights_begin_as_the_seed_says(config: GanConfig) -> None:
    def begin(seed: int) -> Players:
        return Players(dataclasses.replace(config, seed=seed), FORM, Processes("cpu"))

    first, again, other = begin(3), begin(3), begin(4)
    for network in ("generator", "discriminator"):
        weights_of = weights(getattr(first, network))
        assert all(unchanged(getattr(again, network), weights_of))
        assert not any(unchanged(getattr(other, network), weights_of))


def test_a_run_leaves_a_whole_directory(config: GanConfig, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    result = train(config, tmp_path / "run")
    assert torch.get_num_threads() == before
    assert result.step == 6
    assert not result.stopped_early
    assert all(path.exists() for path in result.made.values())
    assert checkpoint_steps(result.path / "checkpoint") == [4, 6]
    description = json.loads((result.path / "config.json").read_text())
    assert description["kind"] == "gan"
    assert [step for step, *_ in losses(result.path)] == [1, 2, 3, 4, 5, 6]
    with Image.open(result.path / "samples.png") as grid:
        assert grid.mode == "RGB"


@pytest.mark.parametrize("first", [4, 3])  # on a multiple of checkpoint_every and off it
def test_resumed_run_equals_the_uninterrupted_one(
    config: GanConfig, tmp_path: Path, first: int
) -> None:
    whole = train(config, tmp_path / "whole").path
    halves = train(dataclasses.replace(config, steps=first), tmp_path / "halves").path
    result = resume(halves, steps=config.steps)
    assert result.step == config.steps
    assert losses(whole) == losses(halves)
    assert (whole / "samples.png").read_bytes() == (halves / "samples.png").read_bytes()
    assert (whole / "config.json").read_bytes() == (halves / "config.json").read_bytes()
    for path in (whole / "checkpoint" / "step-6").iterdir():
        assert path.read_bytes() == (halves / "checkpoint" / "step-6" / path.name).read_bytes()


def test_a_finished_run_is_not_resumed(config: GanConfig, tmp_path: Path) -> None:
    path = train(config, tmp_path / "run").path
    before = losses(path)
    for steps in (None, 5, 6):
        with pytest.raises(InputError, match="is finished: it has done 6 steps"):
            resume(path, steps)
    assert losses(path) == before
    assert resume(path, steps=7).step == 7


def test_other_data_are_refused_on_resume(config: GanConfig, tmp_path: Path) -> None:
    path = train(config, tmp_path / "run").path
    np.savez(config.data.path, np.zeros((11, 3, 4, 5), np.uint8))
    with pytest.raises(InputError, match="data has changed"):
        resume(path)


def test_bad_input_leaves_no_directory(config: GanConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for changes in (
        {"data": DataConfig("images", tmp_path / "missing")},
        {"data": DataConfig("ring8")},  # of another range than the model's head
        {"device": "nonsense"},
        {"conditioning": "projection"},  # without labels
    ):
        with pytest.raises(InputError):
            train(dataclasses.replace(config, **changes), run)
        assert not run.exists()
    with pytest.raises(InputError, match="not empty"):
        train(config, tmp_path)


def test_divergence_names_the_last_good_checkpoint(config: GanConfig, tmp_path: Path) -> None:
    # The first step is sane, its update is not.
    wild = dataclasses.replace(config, generator_learning_rate=1e30, checkpoint_every=1)
    with pytest.raises(InputError, match=r"training diverged: .*step-1$"):
        train(wild, tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run" / "checkpoint") == [1]


def test_sampling_is_reproducible_and_uses_the_average(config: GanConfig, tmp_path: Path) -> None:
    path = train(config, tmp_path / "run").path
    trained = TrainedGenerator.open(path)
    assert trained.draw(5).shape == (5, 3, 4, 5)
    assert np.array_equal(trained.draw(5, seed=2), trained.draw(5, seed=2))
    assert not np.array_equal(trained.draw(5, seed=2), trained.draw(5, seed=3))
    averaged, moving = Generator(SMALL, (3, 4, 5)), Generator(SMALL, (3, 4, 5))
    checkpoint = path / "checkpoint"
    load_checkpoint(checkpoint, {"generator_average": averaged, "generator": moving})
    # The mean has left where the generator began, and is not where it is.
    assert not any(unchanged(averaged, weights(make_players(config).generator)))
    assert not any(unchanged(averaged, weights(moving)))
    with torch.no_grad():
        expected = averaged(averaged.noise(5, torch.Generator().manual_seed(0))) * 255
    assert np.array_equal(trained.draw(5), expected.round().to(torch.uint8).numpy())
    assert sample(path, tmp_path / "out.png", count=3, seed=1).exists()
    with pytest.raises(InputError, match="cannot write"):
        sample(path, tmp_path / "missing" / "out.png")
    with pytest.raises(InputError, match="at least 1"):
        trained.draw(0)


def start_long_run(config: GanConfig, run: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from pathlib import Path; from fusewire.models.gan import MlpConfig\n"
        "from fusewire.training.adversarial.loop import train\n"
        "from fusewire.training.adversarial.config import GanConfig\n"
        "from fusewire.training.adversarial.data import DataConfig\n"
        "data, model = DataConfig('images', Path(sys.argv[1])), MlpConfig(6, (8, 8))\n"
        "train(GanConfig(data, model, steps=10**9, batch=4, threads=1,"
        " checkpoint_every=5), Path(sys.argv[2]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, config.data.path, run],
        stdout=subprocess.DEVNULL,
    )
    while not checkpoint_steps(run / "checkpoint"):
        assert process.poll() is None, "the run ended before it saved"
        time.sleep(0.02)
    return process


def test_killed_run_leaves_a_checkpoint_that_continues(config: GanConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_long_run(config, run)
    process.kill()
    process.wait()
    steps = checkpoint_steps(run / "checkpoint")
    assert resume(run, steps=steps[-1] + 3).step == steps[-1] + 3
    numbers = [step for step, *_ in losses(run)]
    assert numbers == sorted(set(numbers))

    newest = run / "checkpoint" / f"step-{steps[-1] + 3}"
    (newest / "generator.safetensors").write_bytes(b"damaged")
    with pytest.warns(CheckpointWarning, match="is damaged"):
        assert resume(run, steps=steps[-1] + 4).step == steps[-1] + 4


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
def test_signal_saves_and_ends_cleanly(config: GanConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_long_run(config, run)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    assert (run / "losses.png").exists()
    assert TrainedGenerator.open(run).draw(2).shape == (2, 3, 4, 5)
