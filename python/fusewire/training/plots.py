"""Pictures of how a run went."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusewire.training.durable import replace_file_or_refuse
from fusewire.training.metrics import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_POINTS_IN_VIEW = 400
_FLOOR = 1e-7  # keeps the logarithm of silence finite


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
    _write(figure, path)


def plot_matrix(
    values: NDArray[np.floating | np.integer],
    rows: Sequence[str],
    columns: Sequence[str],
    path: Path,
    *,
    title: str,
) -> None:
    """Draws a matrix as squares, dark for large numbers, with names at its sides.

    Args:
        values: ``(rows, columns)``.
        rows: names from top to bottom.
        columns: names from left to right.
        path: the PNG to write.
        title: stands above.

    Raises:
        InputError: the PNG cannot be written.
    """
    from matplotlib.figure import Figure

    size = (2.5 + 0.28 * len(columns), 1.5 + 0.28 * len(rows))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, cmap="Greys", vmin=0)
    # Dollars would be read as formulas.
    axes.set_xticks(range(len(columns)), [name.replace("$", r"\$") for name in columns])
    axes.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name in rows])
    axes.tick_params("x", rotation=90 if max(map(len, columns), default=0) > 1 else 0)
    axes.set_title(title, fontsize="small", wrap=True)
    _write(figure, path)


def plot_points(points: NDArray[np.float32], path: Path) -> None:
    """Draws the first two numbers of each vector as a point.

    Args:
        points: (points, numbers).
        path: the PNG to write.

    Raises:
        InputError: the PNG cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.scatter(points[:, 0], points[:, min(1, points.shape[1] - 1)], s=4)
    axes.grid(alpha=0.3)
    _write(figure, path)


def plot_spectrograms(clips: NDArray[np.float32], rate: int, path: Path, columns: int = 5) -> None:
    """Draws the spectrogram of each clip, louder is brighter.

    Args:
        clips: (clips, numbers).
        rate: numbers per second.
        path: the PNG to write.
        columns: how many stand beside each other.

    Raises:
        InputError: the PNG cannot be written.
    """
    from matplotlib.figure import Figure

    columns = min(columns, len(clips))
    rows = -(-len(clips) // columns)
    figure = Figure(figsize=(2 * columns, 1.8 * rows), dpi=120, layout="constrained")
    window = max(2, min(256, clips.shape[1] // 2))
    for axes, clip in zip(figure.subplots(rows, columns, squeeze=False).flat, clips, strict=False):
        axes.specgram(clip + _FLOOR, NFFT=window, Fs=rate, noverlap=window * 3 // 4)
        axes.set(xticks=[], yticks=[])
    _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    replace_file_or_refuse(path, content.getvalue())


def _running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    # The mean over the last `width` values, over fewer where the run began.
    sums = np.cumsum(np.concatenate(([0.0], values)))
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - width, 0)
    return np.asarray((sums[last] - sums[first]) / (last - first))
