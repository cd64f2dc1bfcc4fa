"""All scores of a trained generator, with what they were computed from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fusewire.data.vectors import grid, ring
from fusewire.data.words import spell
from fusewire.errors import InputError
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import DataConfig, SampleFormat, Samples, load_samples
from fusewire.training.adversarial.samples import KIND, TrainedGenerator, draw, write_samples
from fusewire.training.devices import memory_refusals
from fusewire.training.evaluation.distances import (
    class_divergence,
    coverage_scores,
    frechet_distance,
    kernel_distance,
    nearest,
)
from fusewire.training.evaluation.features import Features, Numbers, train_features
from fusewire.training.evaluation.modes import count_modes
from fusewire.training.run_directory import RunDirectory
from fusewire.training.settings import require_counts, require_seed

_MIXTURES = {"ring8": ring(), "grid25": grid()}


@dataclass(frozen=True)
class Evaluation:
    """Scores of a generator.

    Attributes:
        scores: by name.
        conditions: what they were computed from: counts of samples, resizing, and feature net.
    """

    scores: Mapping[str, float]
    conditions: Mapping[str, str]


@memory_refusals()
def evaluate(
    path: Path,
    count: int = 5_000,
    seed: int = 0,
    keep: Path | None = None,
    features: Callable[[SampleFormat], Features] | None = None,
) -> Evaluation:
    """Scores the generator of a run against the data that it was trained on.

    Images and sound with labels are compared in the features of a classifier trained on the same
    data; points of a known mixture are counted by mode; words are looked up. Without labels, and
    where all are equal, the numbers of a sample themselves are its features. The histogram of
    classes is always told by the classifier. A generator of classes is asked for those of the real
    samples that it is compared with.

    Args:
        path: the run directory.
        count: generated samples, and at most as many real ones.
        seed: of the generated samples, the choice of real ones, and the classifier.
        keep: folder in which the classifier is kept for the next time.
        features: what to compare in instead, such as
            `fusewire.training.evaluation.inception.inception_features`; it is told what a sample
            is.

    Raises:
        InputError: the directory is no such run, is damaged, its data have changed, or the
            features are not for such samples.
    """
    require_counts(count=count)
    require_seed(seed)
    run = RunDirectory.open(path, KIND)
    config = run.config(GanConfig)
    trained = TrainedGenerator.open(path)
    samples = load_samples(config.data, config.model.head)
    run.require_same_data(samples.fingerprint)
    asked = None if features is None else features(samples.format)
    if samples.format.medium == "words":
        return _evaluate_words(trained, samples, count, seed)
    return evaluate_samples(trained, samples, config.data, count, seed, keep, asked)


def evaluate_samples(
    trained: TrainedGenerator,
    samples: Samples,
    data: DataConfig,
    count: int,
    seed: int,
    keep: Path | None,
    asked: Features | None = None,
) -> Evaluation:
    """See `evaluate`; for data that have been read already."""
    chosen = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))[:count]
    real = samples.at(chosen)
    # Classes as often as among the real samples: else a generator is blamed for what was asked.
    labels = None if samples.labels is None else samples.labels[chosen]
    asked_for = None if labels is None else labels[torch.arange(count) % len(labels)]
    fake = draw(trained.network, count, seed, asked_for)
    classifier = None
    if samples.labels is not None and samples.format.classes > 1:
        classifier = train_features(
            _all(samples), samples.labels, seed=seed, keep=keep, rate=samples.format.rate
        )
    features: Features = asked or classifier or Numbers()
    seen_real, seen_fake = features.features(real), features.features(fake)
    scores = compare(seen_real, seen_fake)
    conditions = _conditions(data, features, seen_real, seen_fake)
    if trained.network.classes:
        conditions["classes asked for"] = "those of the real samples"
    if samples.format.classes == 1:
        conditions["classes"] = "one, so that there is nothing to tell apart"
    if classifier is not None and labels is not None:
        scores["class_divergence"] = class_divergence(
            labels, classifier.classes(fake), samples.format.classes
        )
        if features is not classifier:
            conditions["classes"] = str(classifier)
    if data.kind in _MIXTURES:
        modes = count_modes(fake.numpy(), _MIXTURES[data.kind])
        scores |= {"modes": modes.covered, "near_a_mode": modes.near}
        conditions["modes"] = str(modes)
    return Evaluation(scores, conditions)


def _conditions(data: DataConfig, features: Features, real: Tensor, fake: Tensor) -> dict[str, str]:
    resized = [f"real pictures to {data.size[0]} x {data.size[1]}"] if data.size else []
    resized += [features.resize] if features.resize else []
    conditions = {
        "real samples": str(len(real)),
        "generated samples": str(len(fake)),
        "resize": "; ".join(resized) or "none",
        "features": str(features),
    }
    fewest, size = min(len(real), len(fake)), real.shape[1]
    if fewest <= size:
        conditions["few samples"] = (
            f"{fewest} for {size} features; the Fréchet distance is too large for so few, the "
            "kernel distance is right on average"
        )
    return conditions


def compare(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Every score that needs nothing but features, (samples, size), by name.

    Raises:
        InputError: there are too few samples, or features that are not finite.
    """
    if min(len(real), len(fake)) < 10:
        raise InputError(f"scores need ten samples each, got {len(real)} and {len(fake)}")
    for name, seen in (("real", real), ("generated", fake)):
        if not bool(seen.isfinite().all()):
            raise InputError(f"features of {name} samples are not finite: they cannot be compared")
    return {
        "frechet_distance": frechet_distance(real, fake),
        "kernel_distance": kernel_distance(real, fake),
        **dataclasses.asdict(coverage_scores(real, fake)),
    }


@dataclass(frozen=True)
class Nearness:
    """How near samples lie to the real ones: has a generator learnt by heart?

    Attributes:
        ratio: mean distance of samples to the nearest real ones, over that of real samples to
            theirs; far below 1 means that real samples are repeated.
        samples: how many.
        real: among how many.
    """

    ratio: float
    samples: int
    real: int

    def __str__(self) -> str:
        return (
            f"{self.samples} samples are {self.ratio:.2f} times as far from the nearest of "
            f"{self.real} real ones as those are from each other, by the numbers of a sample"
        )


def show_neighbours(path: Path, output: Path, count: int = 10, seed: int = 0) -> Nearness:
    """Writes samples in one row and the real ones nearest to them below.

    Args:
        path: the run directory.
        output: the file to write.
        count: how many samples.
        seed: of them.

    Raises:
        InputError: the directory is no such run, is damaged, or the file cannot be written.
    """
    require_counts(count=count)
    config = RunDirectory.open(path, KIND).config(GanConfig)
    trained = TrainedGenerator.open(path)
    trained.require_name(output)
    real = _all(load_samples(config.data, config.model.head))
    fake = draw(trained.network, count, seed)
    indices, distances = nearest(fake, real)
    shown = torch.cat((fake, real[indices]))
    write_samples(trained.natural(shown), trained.form, output, columns=count)
    others = torch.cdist(real[: 10 * count].flatten(1), real.flatten(1)).kthvalue(2, dim=1).values
    return Nearness(float(distances.mean() / others.mean()), len(fake), len(real))


def _evaluate_words(
    trained: TrainedGenerator, samples: Samples, count: int, seed: int
) -> Evaluation:
    known = set(spell(samples.stored.numpy()))
    made = spell(draw(trained.network, count, seed).argmax(1).numpy())
    scores = {
        "real_words": float(np.mean([word in known for word in made])),
        "different_words": len(set(made)) / len(made),
    }
    conditions = {"known words": str(len(known)), "generated samples": str(count)}
    return Evaluation(scores, conditions)


def _all(samples: Samples) -> Tensor:
    return samples.at(torch.arange(len(samples)))
