"""Every kind of data from its files to samples that a person can look at or listen to."""

from __future__ import annotations

import dataclasses
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fusewire.cli import main
from fusewire.data.audio import wav_bytes
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


@pytest.fixture
def data(tmp_path: Path) -> Path:
    source = np.random.default_rng(0)
    np.savez(
        tmp_path / "images.npz",
        images=source.integers(0, 256, (60, 8, 8), dtype=np.uint8),
        labels=np.arange(60) % 3,
    )
    np.save(tmp_path / "vectors.npy", source.standard_normal((30, 5)))
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog ran for the hat")
    (tmp_path / "sound").mkdir()
    for index in range(6):
        tone = np.sin(np.arange(200) * (0.1 + 0.1 * index)).astype(np.float32)
        (tmp_path / "sound" / f"{index % 2}_{index}.wav").write_bytes(wav_bytes(tone, RATE))
    return tmp_path


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


def test_clips_are_what_was_recorded(data: Path) -> None:
    samples = load_samples(DataConfig("audio", data / "sound", 150), "tanh")
    assert samples.format.shape == (1, 150)
    assert (samples.format.rate, samples.format.classes) == (RATE, 2)
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 0, 0, 1, 1, 1]
    tone = np.sin(np.arange(150) * 0.1)
    np.testing.assert_allclose(samples.at(torch.tensor([0]))[0, 0], tone, atol=1e-4)


@pytest.mark.parametrize(("width", "channels"), [(1, 1), (2, 2), (3, 1), (4, 2)])
def test_wav_files_of_every_width(tmp_path: Path, width: int, channels: int) -> None:
    from fusewire.data.audio import read_wav

    values = np.repeat(np.linspace(-0.9, 0.9, 50), channels)
    whole = np.rint(values * (2 ** (8 * width - 1) - 1)).astype("<i8")
    content = whole.view("u1").reshape(-1, 8)[:, :width]
    if width == 1:
        content = (content.astype(np.int64) + 128).astype("u1")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((channels, width, RATE, 50, "NONE", ""))
        file.writeframes(content.tobytes())
    read, rate = read_wav(tmp_path / "a.wav")
    assert rate == RATE
    np.testing.assert_allclose(read, np.linspace(-0.9, 0.9, 50), atol=0.01)


def test_wav_files_of_other_makers(tmp_path: Path) -> None:
    """Floating point numbers, the extensible header, chunks before, and a wrong length."""
    from fusewire.data.audio import read_wav

    values = np.linspace(-0.9, 0.9, 51).astype("<f4")
    real = struct.pack("<HHIIHH", 3, 1, RATE, 4 * RATE, 4, 32)
    extensible = struct.pack("<HHIIHHHHIH14s", 65534, 1, RATE, 2 * RATE, 2, 16, 22, 16, 0, 1, b"")
    whole = np.rint(values * 32767).astype("<i2")
    for header, content in ((real, values.tobytes()), (extensible, whole.tobytes())):
        parts = [(b"junk", b"abc\0"), (b"fmt ", header), (b"data", content)]
        sizes = {b"junk": 3, b"data": 0xFFFFFFFF}
        chunks = [
            name + struct.pack("<I", sizes.get(name, len(inside))) + inside
            for name, inside in parts
        ]
        (tmp_path / "a.wav").write_bytes(b"RIFF\0\0\0\0WAVE" + b"".join(chunks))
        read, rate = read_wav(tmp_path / "a.wav")
        assert rate == RATE
        np.testing.assert_allclose(read, values, atol=1e-4)


def test_vectors_from_tables_and_archives(tmp_path: Path) -> None:
    vectors, labels = np.arange(12.0).reshape(6, 2), np.arange(6) % 3
    np.savez(tmp_path / "a.npz", points=vectors, labels=labels)
    (tmp_path / "a.csv").write_text("x,y\n" + "\n".join(f"{a},{b}" for a, b in vectors))
    for name, classes in (("a.npz", 3), ("a.csv", 0)):
        samples = load_samples(DataConfig("vectors", tmp_path / name), "identity")
        assert torch.equal(samples.at(torch.arange(6)), torch.from_numpy(vectors).float())
        assert samples.format.classes == classes


@pytest.mark.parametrize(
    ("told", "classes"),
    [
        (["10", "9", "9", "-1"], [2, 1, 1, 0]),
        (["b c", "a", '"a"', '"z, y"'], [1, 0, 0, 2]),
    ],
)
def test_a_column_of_a_table_tells_the_class(
    told: list[str], classes: list[int], tmp_path: Path
) -> None:
    lines = [f"{number},{word} ,{-number}" for number, word in enumerate(told)]
    table = tmp_path / "a.csv"
    table.write_bytes(("\ufeff x, kind ,y\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode())
    samples = load_samples(DataConfig("vectors", table, label_column="kind"), "identity")
    expected = torch.tensor([[0.0, 0.0], [1.0, -1.0], [2.0, -2.0], [3.0, -3.0]])
    assert torch.equal(samples.at(torch.arange(4)), expected)
    assert samples.labels is not None
    assert samples.labels.tolist() == classes
    assert samples.format.classes == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x,y\n1,2\n", "expected one column called kind, got x, y"),
        ("a.csv", "kind,kind\n1,2\n", "expected one column called kind, got kind, kind"),
        ("a.csv", "", "expected one column called kind"),
        ("a.csv", "x,kind\n", "expected a vector on each line"),
        ("a.csv", "x,kind\n1,a\n2\n", "expected 2 fields on each line, got 2"),
        ("a.csv", "x,kind\nsmall,a\n", "holds no plain numbers"),
        ("a.csv", "kind\na\n", "holds no vectors"),
        ("a.npy", "x", "a label column is one of a .csv file"),
    ],
)
def test_label_columns_that_are_refused(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_samples(DataConfig("vectors", tmp_path / name, label_column="kind"), "identity")
    with pytest.raises(InputError, match="a label column is for vectors, not for images"):
        DataConfig("images", tmp_path / name, label_column="kind")


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


def test_subfolders_of_sound_are_classes(data: Path) -> None:
    for clip in (data / "sound").glob("*.wav"):
        folder = data / "sound" / ("yes" if clip.name.startswith("0") else "no")
        folder.mkdir(exist_ok=True)
        clip.rename(folder / f"clip{clip.name}")
    samples = load_samples(DataConfig("audio", data / "sound", 150), "tanh")
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("kind", "file", "content", "message"),
    [
        ("audio", "missing", None, "does not exist"),
        ("audio", "sound/0_0.wav", None, "is not a folder"),
        ("audio", "sound/0_0.wav", b"RIFF", "is not a folder"),
        ("audio", "empty", "folder", "holds no WAV files"),
        ("vectors", "missing", None, "cannot read"),
        ("vectors", "a.npy", b"hello", "expected an .npy, .npz or .csv file"),
        ("vectors", "a.csv", b"x,y\n1,2\n3\n", "holds no plain numbers"),
        ("vectors", "a.csv", b"", "expected a vector on each line"),
        ("vectors", "images.npz", None, "expected one array of two dimensions, got 0"),
        ("words", "a.txt", b"1234", "holds no word of 5 letters"),
    ],
)
def test_data_that_are_refused(
    kind: str, file: str, content: object, message: str, data: Path
) -> None:
    if content == "folder":
        (data / file).mkdir()
    elif isinstance(content, bytes):
        (data / file).write_bytes(content)
    head = {"audio": "tanh", "words": "softmax"}.get(kind, "identity")
    with pytest.raises(InputError, match=message):
        load_samples(DataConfig(kind, data / file), head)


def test_labels_belong_to_the_data(data: Path) -> None:
    config, marks = DataConfig("images", data / "images.npz"), []
    images = np.load(data / "images.npz")["images"]
    for labels in (np.arange(60) % 3, np.arange(60) % 4):
        np.savez(data / "images.npz", images=images, labels=labels)
        marks.append(load_samples(config, "tanh").fingerprint)
    assert marks[0] != marks[1]
    np.savez(data / "images.npz", images=images, labels=np.arange(60) - 1)
    with pytest.raises(InputError, match="labels must be from 0 to 9999, got -1 to 58"):
        load_samples(config, "tanh")


def test_damaged_sound_is_named(data: Path) -> None:
    (data / "sound" / "1_9.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"1_9\.wav is not a WAV file"):
        load_samples(DataConfig("audio", data / "sound", 100), "tanh")


@pytest.mark.parametrize(
    "choices",
    [
        {"kind": "ring8", "length": 3},
        {"kind": "audio"},
        {"kind": "vectors"},
        {"kind": "words", "length": 0},
        {"kind": "images", "size": (8, 8)},
        {"kind": "images", "path": Path("a"), "size": (8, 0)},
    ],
)
def test_data_that_cannot_be_meant(choices: dict) -> None:
    with pytest.raises(InputError):
        DataConfig(**choices)


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
