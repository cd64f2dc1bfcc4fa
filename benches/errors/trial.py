"""One operator on one random input: the errors of ours and of PyTorch's, result by result."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch

Named = dict[str, torch.Tensor]
Choice = TypeVar("Choice")


class Draw:
    """Sizes, options and numbers that a seed decides."""

    def __init__(self, seed: int) -> None:
        self._choices = random.Random(seed)
        self._numbers = torch.Generator().manual_seed(seed)

    def size(self, most: int, least: int = 1) -> int:
        """Small sizes as often as large ones: the logarithm is uniform."""
        return round(math.exp(self._choices.uniform(math.log(least), math.log(most))))

    def one_of(self, *choices: Choice) -> Choice:
        return self._choices.choice(choices)

    def happens(self, probability: float) -> bool:
        return self._choices.random() < probability

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._numbers, dtype=torch.float64)

    def whole(self, least: int, most: int, *shape: int) -> torch.Tensor:
        """Whole numbers, both ends included."""
        return torch.randint(least, most + 1, shape, generator=self._numbers)


@dataclass(frozen=True)
class Trial:
    """What is computed, by whom, and on what.

    Both sides take the operands by name and return outputs by name; gradients are those of the
    outputs' inner product with `grad_outputs`. The truth is PyTorch's result on the same numbers
    in float64.
    """

    told: str
    """Shape and options, for people."""
    options: tuple[str, ...]
    """What the trial has in common with others, to tell what errors depend on."""
    operands: Named
    sources: int
    """Numbers between operands and results that round by themselves, as the scores of attention:
    no result has more independent errors, however many numbers it has."""
    grad_outputs: Callable[[Named], Named]
    ours: Callable[[Named], Named]
    theirs: Callable[[Named], Named]


class Ratio(NamedTuple):
    """Our error norm over PyTorch's in one result of a trial."""

    result: str
    ratio: float
    chance: float
    """By how much its logarithm would miss 0 by chance alone (its standard deviation)."""


def kind(name: str) -> str:
    """Weights of all layers and directions count as one result: `weight_hh_l1_reverse` too."""
    return re.sub(r"_l\d+(_reverse)?$", "", name)


def results(compute: Callable[[Named], Named], trial: Trial, dtype: torch.dtype) -> Named:
    """Outputs, those of inference, and the gradients of all operands, as numbers of one kind."""
    leaves = {
        name: operand.detach().to(dtype).requires_grad_()
        for name, operand in trial.operands.items()
    }
    with torch.no_grad():
        found = {f"{name} in inference": output for name, output in compute(leaves).items()}
    outputs = compute(leaves)
    found |= {name: output.detach() for name, output in outputs.items()}
    given = trial.grad_outputs(outputs)
    gradients = torch.autograd.grad(
        list(outputs.values()),
        list(leaves.values()),
        [given[name].to(dtype) for name in outputs],
    )
    found |= {f"gradient of {name}": of for name, of in zip(leaves, gradients, strict=True)}
    together: dict[str, list[torch.Tensor]] = {}
    for name, result in found.items():
        together.setdefault(kind(name), []).append(result.double().flatten())
    return {name: torch.cat(parts) for name, parts in together.items()}


def independent(squares: torch.Tensor) -> float:
    """How many independent errors of equal size would spread as these do.

    For sums of two normal errors' squares the ratio of moments is half their number; where a few
    rows hold most of the error, as the first ones of causal attention, it is the number of those.
    """
    moment = float(squares.square().sum())
    return 2.0 * float(squares.sum()) ** 2 / moment if moment > 0 else 1.0


def compare(
    ours: torch.Tensor, theirs: torch.Tensor, truth: torch.Tensor, sources: float = math.inf
) -> tuple[float, float]:
    """The ratio of error norms, and the standard deviation of its logarithm by chance.

    Two norms of n independent errors each, equally large, have a ratio whose logarithm deviates
    by 1 / sqrt(n). What both have exactly counts as 1; what one of them has, as infinity or 0.
    """
    of_ours, of_theirs = (ours - truth).square(), (theirs - truth).square()
    squares = float(of_ours.sum()), float(of_theirs.sum())
    ratio = math.sqrt(squares[0] / squares[1]) if squares[1] > 0 else math.inf
    ratio = 1.0 if squares == (0.0, 0.0) else ratio
    count = min(independent(of_ours + of_theirs), sources)
    return ratio, 1 / math.sqrt(max(count, 1.0))


def ratios(trial: Trial) -> list[Ratio]:
    """Our errors over PyTorch's in every result.

    Raises:
        AssertionError: if a result of ours is not finite where PyTorch's in float64 is.
    """
    dtype = next(iter(trial.operands.values())).dtype
    ours, theirs = (results(side, trial, dtype) for side in (trial.ours, trial.theirs))
    truth = results(trial.theirs, trial, torch.float64)
    found = []
    for name, exact in truth.items():
        assert not exact.isfinite().all() or ours[name].isfinite().all(), f"{name}: {trial.told}"
        if theirs[name].isfinite().all() and exact.isfinite().all():
            found.append(Ratio(name, *compare(ours[name], theirs[name], exact, trial.sources)))
    return found
