"""Inception's features, with random weights, and the scores in them beside torch-fidelity's."""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics
from torch_fidelity import feature_extractor_inceptionv3 as published

from fusewire.cli import main
from fusewire.errors import InputError
from fusewire.recipes import gan
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import DataConfig, SampleFormat
from fusewire.training.adversarial.loop import train
from fusewire.training.adversarial.samples import natural
from fusewire.training.evaluation import inception
from fusewire.training.evaluation.features import Numbers
from fusewire.training.evaluation.inception import inception_features
from fusewire.training.evaluation.report import compare, evaluate

GREY = SampleFormat("images", (1, 9, 7))
COLOUR = SampleFormat("images", (3, 12, 12), low=-1.0)


class Unfilled(published.FeatureExtractorInceptionV3):
    """The net as it is before weights are read."""

    def __init__(self) -> None:
        nothing = io.BytesIO()
        torch.save({}, nothing)
        nothing.seek(0)
        super().__init__("unfilled", ["2048"], feature_extractor_weights_path=nothing)

    def load_state_dict(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    net = Unfilled()
    source = torch.Generator().manual_seed(0)
    for weight in net.parameters():
        if weight.dim() > 2:  # so that numbers stay as large as they are through all layers
            torch.nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=source)
    return net.state_dict()


@pytest.fixture(scope="module")
def named(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    safetensors.torch.save_file(weights, path)
    return path


@pytest.fixture
def kept(weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What torch-fidelity publishes, where PyTorch keeps it, but with random weights."""
    written = io.BytesIO()
    torch.save(weights, written)
    name = f"weights-inception-{hashlib.sha256(written.getvalue()).hexdigest()[:8]}.pth"
    monkeypatch.setattr(published, "URL_INCEPTION_V3", f"http://nowhere.invalid/{name}")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = tmp_path / "torch" / "hub" / "checkpoints" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(written.getvalue())
    return path


def pictures(count: int, form: SampleFormat, seed: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    unit = torch.rand(count, *form.shape, generator=source) ** (seed + 1)
    return unit * (1 - form.low) + form.low


class Bytes(Dataset):
    """Pictures as torch-fidelity reads them."""

    def __init__(self, samples: Tensor, form: SampleFormat) -> None:
        self.content = torch.from_numpy(natural(samples, form)).expand(-1, 3, -1, -1).contiguous()

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, index: int) -> Tensor:
        return self.content[index]


@pytest.mark.filterwarnings("ignore")  # theirs
def test_scores_are_torch_fidelitys(named: Path, kept: Path) -> None:
    real, fake = pictures(12, GREY, 0), pictures(12, GREY, 1)
    features = inception_features(GREY, named)
    ours = compare(features.features(real), features.features(fake))
    theirs = calculate_metrics(
        input1=Bytes(fake, GREY), input2=Bytes(real, GREY), cuda=False, cache=False, verbose=False,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(kept),
        fid=True, kid=True, kid_subsets=1, kid_subset_size=12, prc=True, prc_neighborhood=5,
    )  # fmt: skip
    expected = {
        "frechet_distance": theirs["frechet_inception_distance"],
        "kernel_distance": theirs["kernel_inception_distance_mean"],
        "precision": theirs["precision"],
        "recall": theirs["recall"],
    }
    assert {name: ours[name] for name in expected} == pytest.approx(expected, rel=1e-3)


def test_colours_are_seen_batch_by_batch(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "_BATCH", 2)
    samples = pictures(3, COLOUR, 0)
    features = inception_features(COLOUR, named)
    expected = features.net(Bytes(samples, COLOUR).content)[0]
    torch.testing.assert_close(features.features(samples), expected, rtol=1e-4, atol=1e-4)


def test_the_published_file_is_read_as_tensors(
    weights: dict[str, Tensor], named: Path, kept: Path
) -> None:
    before = torch.random.get_rng_state()
    features = inception_features(GREY)
    assert torch.equal(before, torch.random.get_rng_state())
    assert features.digest in hashlib.sha256(kept.read_bytes()).hexdigest()
    assert "Inception v3 of 2015, 2048 features, weights with SHA-256" in str(features)
    for name, weight in features.net.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    samples = pictures(3, GREY, 0)
    assert torch.equal(
        features.features(samples), inception_features(GREY, named).features(samples)
    )
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(InputError, match="remove it, and it is fetched again"):
        inception_features(GREY)
    kept.unlink()
    with pytest.raises(InputError, match=r"cannot fetch .*--inception-weights"):
        inception_features(GREY)


class Trap:
    """Would leave a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return builtins.open, (str(self.path), "w")


def test_nothing_a_person_names_is_unpickled(tmp_path: Path) -> None:
    trap, sprung = tmp_path / "trap.safetensors", tmp_path / "sprung"
    for write in (pickle.dump, torch.save):
        with trap.open("wb") as file:
            write(Trap(sprung), file)
        with pytest.raises(InputError, match="is no safetensors file or is damaged"):
            inception_features(GREY, trap)
    assert not sprung.exists()


def test_weights_that_cannot_be_meant(
    weights: dict[str, Tensor], named: Path, tmp_path: Path
) -> None:
    first = "Conv2d_1a_3x3.conv.weight"
    without = {name: weight for name, weight in weights.items() if name != first}
    changes = {
        "another net's: Missing key.*Conv2d_1a_3x3": without,
        "another net's: Unexpected key.*stranger": weights | {"stranger": torch.zeros(1)},
        "another net's: size mismatch": weights | {first: torch.zeros(4, 3, 3, 3)},
        "numbers that are not finite": weights | {first: weights[first] * torch.nan},
    }
    path = tmp_path / "changed.safetensors"
    for complaint, tensors in changes.items():
        safetensors.torch.save_file(tensors, path)
        with pytest.raises(InputError, match=complaint) as refusal:
            inception_features(GREY, path)
        assert len(str(refusal.value)) < 400
    path.write_bytes(named.read_bytes()[:100_000])
    with pytest.raises(InputError, match="is no safetensors file or is damaged"):
        inception_features(GREY, path)
    for nowhere in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=f"cannot read {nowhere}"):
            inception_features(GREY, nowhere)
    with pytest.raises(InputError, match="/dev/null is not a file but a pipe"):
        inception_features(GREY, Path("/dev/null"))


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        (SampleFormat("audio", (1, 128), rate=1000), "of pictures, not of audio"),
        (SampleFormat("vectors", (5,)), "of pictures, not of vectors"),
        (SampleFormat("points", (2,)), "of pictures, not of points"),
        (SampleFormat("words", (27, 5)), "of pictures, not of words"),
        (SampleFormat("images", (4, 8, 8)), "grey pictures or of three channels, got 4"),
    ],
)
def test_samples_that_it_cannot_see(form: SampleFormat, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        inception_features(form)


def test_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch_fidelity")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(
        InputError, match=r"torch_fidelity is not installed: .*fusewire\[inception\]"
    ):
        inception_features(GREY)


def run_of(path: Path, labels: bool) -> GanConfig:
    content = {"images": np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)}
    if labels:
        content["labels"] = np.arange(40) % 2
    np.savez(path, **content)
    config = gan.default(DataConfig("images", path))
    return dataclasses.replace(config, steps=2, batch=4, checkpoint_every=2, threads=1)


def test_classes_are_told_whatever_samples_are_compared_in(tmp_path: Path) -> None:
    path = train(run_of(tmp_path / "images.npz", labels=True), tmp_path / "run").path
    result = evaluate(path, count=10, features=lambda _: Numbers())
    assert {"frechet_distance", "density", "class_divergence"} <= set(result.scores)
    assert result.conditions["features"] == "the numbers of a sample"
    assert "own classifier" in result.conditions["classes"]
    assert "classes" not in evaluate(path, count=10).conditions


def test_a_run_without_labels_is_scored(
    named: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = train(run_of(tmp_path / "images.npz", labels=False), tmp_path / "run").path
    capfd.readouterr()
    command = ["evaluate", str(path), "--count", "10", "--features", "inception"]
    assert main([*command, "--inception-weights", str(named)]) == 0
    printed = capfd.readouterr().out
    assert "kernel_distance" in printed
    assert "class_divergence" not in printed
    for told in (
        "real samples: 10",
        "generated samples: 10",
        "resize: all pictures to 299 x 299 for the features, as TensorFlow 1 does",
        "features: Inception v3 of 2015, 2048 features, weights with SHA-256",
        "few samples: 10 for 2048 features",
    ):
        assert f"  {told}" in printed


def test_options_that_do_not_go_together(
    named: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = train(run_of(tmp_path / "images.npz", labels=False), tmp_path / "run").path
    capfd.readouterr()
    assert main(["evaluate", str(path), "--inception-weights", str(named)]) == 2
    assert "--inception-weights is for --features inception" in capfd.readouterr().err
