"""Scores against what is known of them, and against torchmetrics where it has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusewire.data.images import load_images
from fusewire.data.samples import FASHION_IMAGES
from fusewire.data.vectors import grid, ring
from fusewire.errors import InputError
from fusewire.training.evaluation import distances
from fusewire.training.evaluation.distances import (
    class_divergence,
    coverage_scores,
    frechet_distance,
    kernel_distance,
    nearest,
)
from fusewire.training.evaluation.features import FeatureNet, train_features
from fusewire.training.evaluation.modes import count_modes
from fusewire.training.evaluation.report import compare


@pytest.fixture
def cloud() -> torch.Tensor:
    return torch.randn(600, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def fashion() -> tuple[torch.Tensor, torch.Tensor]:
    images = load_images(FASHION_IMAGES)
    assert images.classes is not None
    labels = torch.from_numpy(images.classes.labels)
    return torch.from_numpy(images.pixels / np.float32(255)), labels


def test_frechet_distance_of_gaussians(cloud: torch.Tensor) -> None:
    assert frechet_distance(cloud, cloud) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(cloud, cloud + 3) == pytest.approx(9 * 8)
    # Twice the deviation, in every direction: (2 s - s)^2 of each.
    variance = cloud.double().var(0).sum().item()
    centred = cloud - cloud.mean(0)
    assert frechet_distance(centred, 2 * centred) == pytest.approx(variance)


class Flat(torch.nn.Module):
    num_features = 27

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).float()


@pytest.mark.filterwarnings("ignore")
def test_frechet_distance_is_torchmetrics() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    metric = fid.FrechetInceptionDistance(feature=Flat(), normalize=True)
    real, fake = torch.rand(300, 3, 3, 3), torch.rand(200, 3, 3, 3) ** 2
    metric.update(real, real=True)
    metric.update(fake, real=False)
    expected = metric.compute().item()
    assert frechet_distance(real.flatten(1), fake.flatten(1)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_kernel_distance_is_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    metric = kid.KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=200, normalize=True)
    real, fake = torch.rand(200, 3, 3, 3), torch.rand(200, 3, 3, 3) ** 2
    metric.update(real, real=True)
    metric.update(fake, real=False)
    expected = metric.compute()[0].item()
    assert kernel_distance(real.flatten(1), fake.flatten(1)) == pytest.approx(expected, rel=1e-3)


def test_kernel_distance_is_unbiased(cloud: torch.Tensor) -> None:
    other = torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    assert abs(kernel_distance(cloud, other)) < 0.05
    assert kernel_distance(cloud, other + 1) > 1


def test_coverage_tells_collapse_from_noise(cloud: torch.Tensor) -> None:
    other = torch.randn(600, 8, generator=torch.Generator().manual_seed(1))
    good = coverage_scores(cloud, other)
    assert min(good.precision, good.recall, good.coverage) > 0.8
    assert good.density == pytest.approx(1, abs=0.1)
    collapsed = coverage_scores(cloud, cloud[:1] + 0.01 * other)
    assert collapsed.precision > 0.9
    assert max(collapsed.recall, collapsed.coverage) < 0.1
    noisy = coverage_scores(cloud, 5 * other)
    assert noisy.precision < 0.2
    with pytest.raises(InputError, match="ten samples each, got 600 and 3"):
        compare(cloud, cloud[:3])


def test_scores_do_not_depend_on_how_many_rows_are_compared_at_once(
    cloud: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = 1.2 * torch.randn(421, 8, generator=torch.Generator().manual_seed(1))
    at_once = compare(cloud, other)
    monkeypatch.setattr(distances, "_ROWS", 100)
    assert compare(cloud, other) == pytest.approx(at_once)


def test_class_divergence() -> None:
    even = torch.arange(1000) % 10
    assert class_divergence(even, even, 10) == 0
    one = class_divergence(even, torch.zeros(1000, dtype=torch.long), 10)
    half = class_divergence(even, torch.arange(1000) % 5, 10)
    assert one == pytest.approx(np.log(10), rel=0.05)
    assert half == pytest.approx(np.log(2), rel=0.05)


def test_modes_of_mixtures() -> None:
    for mixture, modes in ((ring(), 8), (grid(), 25)):
        counted = count_modes(mixture.points(2_500, seed=3), mixture)
        assert (counted.covered, counted.modes) == (modes, modes)
        assert counted.near == pytest.approx(0.989, abs=0.01)  # within 3 deviations, in two sizes
        one = count_modes(mixture.centres[:1].repeat(50, axis=0), mixture)
        assert one.covered == 1


def test_nearest_finds_a_copy(cloud: torch.Tensor) -> None:
    indices, apart = nearest(cloud[[5, 17]] + 1e-3, cloud)
    assert indices.tolist() == [5, 17]
    assert bool((apart < 0.01).all())


def test_distance_grows_with_every_corruption(
    fashion: tuple[torch.Tensor, torch.Tensor], tmp_path
) -> None:
    samples, labels = fashion
    trained = train_features(samples, labels, steps=40, keep=tmp_path)
    assert trained.accuracy > 0.5
    samples = samples[:400]
    noise = torch.rand(samples.shape, generator=torch.Generator().manual_seed(0))
    block = torch.ones_like(samples)
    corruptions = {
        "noise": lambda part: torch.lerp(samples, noise, part),
        "fading": lambda part: samples * (1 - part),
        "hole": lambda part: (
            samples * (block.clone().index_fill_(2, torch.arange(int(28 * part)), 0))
        ),
        "shift": lambda part: samples.roll(int(14 * part), 3),
    }
    seen = trained.net.features(samples)
    for name, corrupt in corruptions.items():
        found = [
            frechet_distance(seen, trained.net.features(corrupt(part)))
            for part in (0.0, 0.15, 0.4, 0.8)
        ]
        assert found == sorted(found), name
        assert found[0] == pytest.approx(0, abs=1e-3)

    samples, labels = fashion
    again = train_features(samples, labels, steps=40, keep=tmp_path)
    assert again.accuracy == trained.accuracy
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match="two classes and ten samples"):
        train_features(samples, torch.zeros_like(labels))


def test_feature_net_reads_sound() -> None:
    assert FeatureNet((1, 900), classes=3)(torch.rand(2, 1, 900)).shape == (2, 3)
