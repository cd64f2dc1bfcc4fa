"""What many trials say together: means, extremes, and how much of them is chance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from benches.errors.trial import Ratio

FEW = 100
"""Independent errors below which the ratio of a single trial says little: chance moves it by 10 %
and more. Such trials count in means, where chance evens out, and in no percentile or maximum."""
BEYOND = 2.0
"""Standard deviations beyond which a ratio is no longer taken for chance."""


class Outcome(NamedTuple):
    """One trial: its seed, what it was, and its ratios."""

    seed: int
    told: str
    options: tuple[str, ...]
    ratios: list[Ratio]


class Row(NamedTuple):
    """One result over all trials."""

    result: str
    trials: int
    few: int
    """Trials with fewer than `FEW` independent errors."""
    exact_ours: int
    """Trials in which ours alone has no error at all, as where every query sees one key only."""
    exact_theirs: int
    mean: float
    """The geometric mean of all ratios but these."""
    high: float
    """Ninety-five of a hundred ratios are not above this one, those of few errors left out."""
    largest: float
    above: int
    """Trials in which our error is above PyTorch's by more than chance."""
    below: int
    worst: int
    """The seed of the largest."""


def geometric_mean(ratios: Iterable[float]) -> float:
    logarithms = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else math.nan


def row(result: str, found: list[tuple[int, Ratio]]) -> Row:
    inexact = [(seed, ratio) for seed, ratio in found if 0 < ratio.ratio < math.inf]
    told = sorted((ratio.ratio, seed) for seed, ratio in inexact if ratio.chance <= FEW**-0.5)
    beyond = [
        math.copysign(1, math.log(ratio.ratio))
        for _, ratio in inexact
        if abs(math.log(ratio.ratio)) > BEYOND * ratio.chance
    ]
    high, (largest, worst) = (
        (told[math.ceil(0.95 * len(told)) - 1][0], told[-1]) if told else (math.nan, (math.nan, -1))
    )
    return Row(
        result=result,
        trials=len(found),
        few=len(inexact) - len(told),
        exact_ours=sum(ratio.ratio == 0 for _, ratio in found),
        exact_theirs=sum(ratio.ratio == math.inf for _, ratio in found),
        mean=geometric_mean(ratio.ratio for _, ratio in inexact),
        high=high,
        largest=largest,
        above=beyond.count(1),
        below=beyond.count(-1),
        worst=worst,
    )


def by_result(outcomes: list[Outcome]) -> list[Row]:
    found: dict[str, list[tuple[int, Ratio]]] = {}
    for outcome in outcomes:
        for ratio in outcome.ratios:
            found.setdefault(ratio.result, []).append((outcome.seed, ratio))
    return [row(result, ratios) for result, ratios in found.items()]


def by_option(outcomes: list[Outcome]) -> dict[str, list[Row]]:
    """The same for the trials that have an option in common, by its name."""
    options = sorted({option for outcome in outcomes for option in outcome.options})
    return {
        option: by_result([outcome for outcome in outcomes if option in outcome.options])
        for option in options
    }


def table(rows: list[Row]) -> str:
    lines = [f"{'':<26}trials   few  exact   mean   95 %  largest  above  below  worst seed"]
    lines += [
        f"{row.result:<26}{row.trials:>6}{row.few:>6}{f'{row.exact_ours}/{row.exact_theirs}':>7}"
        f"{row.mean:>7.2f}{row.high:>7.2f}"
        f"{row.largest:>9.2f}{row.above:>7}{row.below:>7}{row.worst:>12}"
        for row in rows
    ]
    return "\n".join(lines)
