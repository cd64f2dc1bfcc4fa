"""Pictures of how a run went."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusewire.errors import InputError
from fusewire.training.durable import replace_file
from fusewire.training.metrics import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POINTS_IN_VIEW = 400


def plot_losses(rows: Sequence[Row], path: Path, title: str, curves: Mapping[str, str]) -> None:
    """Draws measured values over steps, the raw points faint and a running mean on top.

    Args:
        rows: what `read_metrics` gave; rows may lack some of the values.
        path: the PNG to write.
        title: stands above the plot.
        curves: name of the value in `rows` to its name in the legend.

    Raises:
        InputError: the PNG cannot be written.
    """
    from matplotlib.figure import Figure  # slow to import, and Agg needs no display

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for key, label in curves.items():
        points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
        if not points:
            continue
        steps, values = np.array(points, dtype=np.float64).T
        width = max(1, len(values) // 50)
        if width > 1:
            stride = max(1, len(values) // _POINTS_IN_VIEW)
            (line,) = axes.plot(steps[::stride], values[::stride], linewidth=0.6, alpha=0.3)
            color = line.get_color()
            axes.plot(steps, _running_mean(values, width), label=label, color=color)
        else:
            axes.plot(steps, values, label=label, marker="." if len(values) < 30 else "")
    axes.set(title=title, xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    content = io.BytesIO()
    figure.savefig(content, format="png")
    try:
        replace_file(path, content.getvalue())
    except OSError as failure:
        raise InputError(f"cannot write {path}: {failure.strerror or failure}") from failure


def _running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    # The mean over the last `width` values, over fewer where the run began.
    sums = np.cumsum(np.concatenate(([0.0], values)))
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - width, 0)
    return np.asarray((sums[last] - sums[first]) / (last - first))
