"""Every kind of data from its files to samples that a person can look at or listen to."""

from __future__ import annotations

import dataclasses
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fusewire.cli import main
from fusewire.errors import InputError
from fusewire.models.gan import Draws, MlpConfig
from fusewire.recipes import gan
from fusewire.training.adversarial.collapse import CollapseWarning, diversity, watch_diversity
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import DataConfig, load_samples
from fusewire.training.adversarial.loop import train
from fusewire.training.adversarial.moves import discriminator_move, generator_move
from fusewire.training.adversarial.pictures import class_rows, film, interpolation
from fusewire.training.adversarial.players import Players
from fusewire.training.adversarial.samples import TrainedGenerator, sample
from fusewire.training.evaluation.report import evaluate, show_neighbours
from fusewire.training.processes import Processes

RATE = 1000


def quick(config: GanConfig, **changes: object) -> GanConfig:
    return dataclasses.replace(
        config, **{"steps": 3, "batch": 6, "checkpoint_every": 2, "threads": 1, **changes}
    )


DATA = {
    "images": ("images", "images.npz", None, ".png"),
    "audio": ("audio", "sound", 128, ".wav"),
    "vectors": ("vectors", "vectors.npy", None, ".npy"),
    "ring8": ("ring8", None, None, ".png"),
    "grid25": ("grid25", None, None, ".png"),
    "words": ("words", "text.txt", 3, ".txt"),
}


def config_of(name: str, data: Path, **choices: str) -> GanConfig:
    kind, file, length, _ = DATA[name]
    return gan.default(DataConfig(kind, data / file if file else None, length), **choices)


@pytest.mark.parametrize("name", DATA)
def test_every_kind_of_data_is_trained_on_and_sampled(name: str, data: Path) -> None:
    config = quick(config_of(name, data))
    result = train(config, data / "run")
    suffix = DATA[name][3]
    assert result.made["samples"].suffix == suffix
    assert result.made["samples"].stat().st_size > 0
    trained = TrainedGenerator.open(result.path)
    drawn = trained.draw(4, seed=1)
    assert np.array_equal(drawn, trained.draw(4, seed=1))
    assert sample(result.path, count=4, seed=1).suffix == suffix
    with pytest.raises(InputError, match=f"ends in {suffix}"):
        sample(result.path, data / "samples.xyz")


def both_moves(config: GanConfig) -> None:
    samples = load_samples(config.data, config.model.head)
    players = Players(config, samples.format, Processes("cpu"))
    real, draws = samples.at(torch.arange(6)), Draws(0, 1, batch=6)
    discriminator_move(config, players, real, None, draws, 0)
    loss, _ = generator_move(config, players, real, None, draws)
    assert bool(loss.isfinite())


@pytest.mark.parametrize("model", ["convolutional", "residual"])
@pytest.mark.parametrize("name", ["images", "audio", "words"])
def test_networks_of_convolutions(name: str, model: str, data: Path) -> None:
    config = quick(config_of(name, data, model=model))
    both_moves(
        dataclasses.replace(config, model=dataclasses.replace(config.model, width=8, widest=8))
    )


@pytest.mark.parametrize(
    "loss", ["minimax", "non_saturating", "least_squares", "hinge", "wasserstein", "relativistic"]
)
@pytest.mark.parametrize("model", ["mlp", "convolutional"])
def test_every_loss_goes_with_every_network(loss: str, model: str, data: Path) -> None:
    both_moves(quick(config_of("images", data, model=model, loss=loss)))


@pytest.mark.parametrize("estimator", ["gumbel", "reinforce"])
def test_words_are_learnt(estimator: str, data: Path) -> None:
    config = quick(
        config_of("words", data), steps=150, checkpoint_every=150, batch=32, estimator=estimator
    )
    result = train(dataclasses.replace(config, generator_learning_rate=5e-3), data / "run")
    scores = evaluate(result.path, count=200).scores
    # 8 words of 17576; chance finds none.
    assert scores["real_words"] > 0.05


def test_vectors_with_classes_are_scored(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    lines = [f"{place % 3},{place / 90},{-(place % 3)}" for place in range(90)]
    table.write_text("kind,x,y\n" + "\n".join(lines))
    data = DataConfig("vectors", table, label_column="kind")
    config = dataclasses.replace(gan.default(data), conditioning="projection", batch=8, steps=4)
    result = evaluate(train(config, tmp_path / "run").path, count=30)
    assert result.scores["class_divergence"] >= 0
    assert "90 samples" not in result.conditions["features"], "some are kept to tell how good it is"
    assert "100.0 % right" in result.conditions["features"]


def test_labels_with_gaps_are_numbered_without(data: Path) -> None:
    images = np.load(data / "images.npz")["images"]
    np.savez(data / "images.npz", images=images, labels=np.array([7, -2, 100])[np.arange(60) % 3])
    config = quick(config_of("images", data), conditioning="projection")
    samples = load_samples(config.data, "tanh")
    assert samples.labels is not None
    assert samples.labels[:3].tolist() == [1, 0, 2]
    assert (samples.format.classes, samples.format.class_names) == (3, ("-2", "7", "100"))
    # The names are kept with the run, and those of folders as well.
    trained = TrainedGenerator.open(train(config, data / "run").path)
    assert trained.form.class_names == ("-2", "7", "100")
    assert trained.network.classes == 3


def test_pictures_of_a_generator_of_classes(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = quick(config_of("images", data), conditioning="projection", frames=True, steps=4)
    path = train(config, data / "run").path
    assert interpolation(path, data / "ways.png", count=4).exists()
    assert class_rows(path, data / "classes.png", count=5).exists()
    with Image.open(data / "classes.png") as picture:
        assert picture.width > picture.height
    with Image.open(film(path, data / "film.gif")) as moving:
        assert moving.n_frames == 2
    result = evaluate(path, count=40, keep=path)
    assert {"frechet_distance", "kernel_distance", "recall", "coverage", "class_divergence"} <= set(
        result.scores
    )
    assert result.conditions["generated samples"] == "40"
    assert "own classifier" in result.conditions["features"]
    nearness = show_neighbours(path, data / "neighbours.png", count=3)
    assert nearness.ratio > 0
    assert str(nearness).startswith("3 samples are ")
    assert "the nearest of 60 real ones" in str(nearness)
    capfd.readouterr()
    assert main(["evaluate", str(path), "--count", "20"]) == 0
    printed = capfd.readouterr().out
    assert "frechet_distance" in printed
    assert "generated samples: 20" in printed
    for show in ("interpolation", "classes", "film"):
        assert main(["sample", str(path), "--show", show, "--count", "3"]) == 0
    assert capfd.readouterr().out.splitlines()[-2:-1] == ["  rows: 0, 1, 2"]
    for show in ("interpolation", "classes", "film"):
        assert main(["sample", str(path), "--show", show, "--out", "samples.txt"]) == 2
        suffix = ".gif" if show == "film" else ".png"
        assert f"expected a name that ends in {suffix}" in capfd.readouterr().err
    with pytest.raises(InputError, match=r"ends in \.png"):
        show_neighbours(path, data / "neighbours.wav")


def clips_in(path: Path, length: int) -> float:
    with wave.open(str(path)) as file:
        return file.getnframes() / (length + RATE // 5)


def test_every_clip_that_is_asked_for_is_written(data: Path) -> None:
    config = quick(config_of("audio", data), conditioning="projection")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, width=4))
    result = train(config, data / "run")
    assert clips_in(result.made["samples"], 128) == clips_in(sample(result.path), 128) == 10
    assert clips_in(sample(result.path, count=25), 128) == 25
    assert clips_in(interpolation(result.path, data / "ways.wav", count=4), 128) == 16
    assert clips_in(class_rows(result.path, data / "classes.wav", count=7), 128) == 14
    assert (data / "classes.png").exists()
    with pytest.raises(InputError, match=r"ends in \.wav"):
        interpolation(result.path, data / "ways.png", count=2)
    assert not (data / "ways.png").read_bytes().startswith(b"RIFF")


def test_data_of_one_class_are_scored_as_without(data: Path) -> None:
    images = np.load(data / "images.npz")["images"]
    np.savez(data / "images.npz", images=images, labels=np.full(60, 7))
    path = train(quick(config_of("images", data)), data / "run").path
    result = evaluate(path, count=20)
    assert result.conditions["features"] == "the numbers of a sample"
    assert "nothing to tell apart" in result.conditions["classes"]
    assert "class_divergence" not in result.scores


def test_pictures_that_cannot_be_made(data: Path) -> None:
    path = train(quick(config_of("images", data)), data / "run").path
    with pytest.raises(InputError, match="without classes"):
        class_rows(path, data / "classes.png")
    with pytest.raises(InputError, match="kept no pictures"):
        film(path, data / "film.gif")


def test_collapse_is_told_once_learning_is_under_way() -> None:
    real = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    alike = real[:1].expand(20, -1)
    assert diversity(real, real) == pytest.approx(1)
    assert watch_diversity(real, alike, step=10) == 0
    with pytest.warns(CollapseWarning, match="at step 1000 its samples differ 0.00 times"):
        watch_diversity(real, alike, step=1000)


def test_tensorboard_is_written_where_it_is_asked_for(data: Path) -> None:
    pytest.importorskip("tensorboard")
    path = train(quick(config_of("images", data), tensorboard=True), data / "run").path
    assert list((path / "tensorboard").glob("events.*"))


def test_impossible_runs(data: Path) -> None:
    config = quick(config_of("images", data))
    for changes in (
        {"estimator": "reinforce"},
        # Its discriminator mixes a batch, which a penalty on single samples does not allow.
        {"model": gan.default(DataConfig(), "convolutional", "non_saturating").model},
    ):
        with pytest.raises(InputError):
            train(dataclasses.replace(config, **changes), data / "run")
    words = quick(config_of("words", data), augmentations=("cutout",))
    with pytest.raises(InputError, match="augmentations are for images"):
        train(words, data / "run")
    with pytest.raises(InputError, match="head must be"):
        train(dataclasses.replace(config, model=MlpConfig(head="identity")), data / "run")
    assert not (data / "run").exists()
