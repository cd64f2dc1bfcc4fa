"""Distances between two clouds of features, and how far one covers the other.

All take features of real and of generated samples, (samples, size), and compute in float64. What
compares every sample with every other does so for some rows at a time, so that memory grows with
the samples and not with their square.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS = 1024


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    r"""Distance between the Gaussians that fit both clouds (Heusel et al. 2017).

    :math:`|μ_r - μ_f|^2 + \mathrm{tr}(Σ_r + Σ_f - 2 (Σ_r Σ_f)^{1/2})`

    Args:
        real: (samples, size), more samples than numbers for a covariance of full rank.
        fake: (samples, size).

    Example:
        >>> cloud = torch.randn(500, 3)
        >>> round(frechet_distance(cloud, cloud + torch.tensor([2.0, 0.0, 0.0])), 4)
        4.0
    """
    real, fake = real.double(), fake.double()
    apart = (real.mean(0) - fake.mean(0)).square().sum()
    first, second = real.T.cov(correction=1), fake.T.cov(correction=1)
    # tr (A B)^(1/2) by eigenvalues of A B, which has those of a symmetric matrix, none negative.
    eigenvalues = torch.linalg.eigvals(first @ second).real.clamp(min=0)
    return float(apart + first.trace() + second.trace() - 2 * eigenvalues.sqrt().sum())


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    r"""Unbiased squared maximum mean discrepancy, :math:`k(x, y) = (x^T y / size + 1)^3`.

    Right on average for any number of samples, where the Fréchet distance is too large for few
    (Binkowski et al. 2018).

    Args:
        real: (samples, size), at least 2.
        fake: (samples, size), at least 2.
    """
    real, fake = real.double(), fake.double()

    def kernel(products: Tensor) -> Tensor:
        return (products / real.shape[1] + 1) ** 3

    def total(first: Tensor, second: Tensor) -> Tensor:
        return torch.stack(
            [kernel(rows @ second.T).sum() for rows in torch.split(first, _ROWS)]
        ).sum()

    def within(cloud: Tensor) -> Tensor:
        with_itself = kernel(cloud.square().sum(1)).sum()
        return (total(cloud, cloud) - with_itself) / (len(cloud) * (len(cloud) - 1))

    apart = total(real, fake) / (len(real) * len(fake))
    return float(within(real) + within(fake) - 2 * apart)


@dataclass(frozen=True)
class Coverage:
    """How two clouds lie in each other.

    Attributes:
        precision: part of the generated samples that lie among real ones.
        recall: part of the real samples that lie among generated ones.
        density: in how many real neighbourhoods a generated sample lies, over the number expected;
            unlike precision, not fooled by single real samples far out.
        coverage: part of the real samples with a generated one in their neighbourhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def coverage_scores(real: Tensor, fake: Tensor, neighbours: int = 5) -> Coverage:
    """Precision and recall, density and coverage.

    A sample's neighbourhood reaches to its k-th neighbour of its own kind (Kynkäänniemi et al.
    2019; Naeem et al. 2020).

    Args:
        real: (samples, size), more than `neighbours`.
        fake: (samples, size), more than `neighbours`.
        neighbours: k.

    Example:
        >>> cloud = torch.randn(200, 2)
        >>> coverage_scores(cloud, cloud + 100).coverage
        0.0
    """
    real, fake = real.double(), fake.double()
    reach_real, reach_fake = _reach(real, neighbours), _reach(fake, neighbours)
    precise = torch.zeros(len(fake), dtype=torch.bool)
    recalled, covered, inside = 0, 0, 0
    for rows, reach in zip(torch.split(real, _ROWS), torch.split(reach_real, _ROWS), strict=True):
        apart = torch.cdist(rows, fake)
        in_real = apart <= reach[:, None]
        precise |= in_real.any(0)
        inside += int(in_real.sum())
        covered += int(in_real.any(1).sum())
        recalled += int((apart <= reach_fake).any(1).sum())
    return Coverage(
        precision=precise.double().mean().item(),
        recall=recalled / len(real),
        density=inside / len(fake) / neighbours,
        coverage=covered / len(real),
    )


def _reach(cloud: Tensor, neighbours: int) -> Tensor:
    """How far each sample's neighbourhood reaches, (samples,)."""
    # The first neighbour is the sample itself.
    found = [
        torch.cdist(rows, cloud).kthvalue(neighbours + 1, dim=1).values
        for rows in torch.split(cloud, _ROWS)
    ]
    return torch.cat(found)


def class_divergence(real: Tensor, fake: Tensor, classes: int) -> float:
    r"""Kullback-Leibler divergence of the generated classes' histogram from the real one, in nats.

    :math:`\sum_c p_f(c) \log (p_f(c) / p_r(c))`, with half a sample added to every class.

    Args:
        real: class numbers, (samples,).
        fake: class numbers, (samples,).
        classes: how many there are.

    Example:
        >>> class_divergence(torch.arange(4), torch.arange(4), classes=4)
        0.0
    """
    generated, expected = (
        (torch.bincount(labels, minlength=classes) + 0.5) / (len(labels) + 0.5 * classes)
        for labels in (fake, real)
    )
    return float((generated * (generated / expected).log()).sum().clamp(min=0))


def nearest(samples: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of other samples, and how far it is.

    Args:
        samples: (samples, ...).
        among: (others, ...), of the same shape each.

    Returns:
        Indices and distances, (samples,) both.
    """
    distances = torch.cdist(samples.flatten(1).float(), among.flatten(1).float())
    closest = distances.min(1)
    return closest.indices, closest.values
