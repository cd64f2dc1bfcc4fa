"""Recurrent cells as they are defined, in float64: the truth that tests compare with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def layer(
    kind: str,
    input: NDArray[Any],
    hidden: NDArray[Any],
    cell: NDArray[Any],
    weights: tuple[NDArray[Any], ...],
    reverse: bool = False,
) -> tuple[Array, Array, Array]:
    """One layer in one direction: output, final hidden and final cell state.

    Args:
        kind: The cell.
        input: ``(seq_len, batch, input_size)``.
        hidden: ``(batch, hidden_size)``.
        cell: ``(batch, hidden_size)``; returned as it is where there is none.
        weights: ``(weight_ih, weight_hh, bias_ih, bias_hh)``.
        reverse: Whether to run from the last step to the first.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = (w.astype(np.float64) for w in weights)
    h, c = hidden.astype(np.float64), cell.astype(np.float64)
    output = np.empty((*input.shape[:2], h.shape[1]))
    times = range(len(input))
    for time in reversed(times) if reverse else times:
        x = input[time].astype(np.float64) @ weight_ih.T + bias_ih
        u = h @ weight_hh.T + bias_hh
        if kind == "tanh":
            h = np.tanh(x + u)
        elif kind == "relu":
            h = np.maximum(x + u, 0)
        elif kind == "lstm":
            i, f, g, o = np.split(x + u, 4, axis=1)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
        else:
            (xr, xz, xn), (ur, uz, un) = np.split(x, 3, axis=1), np.split(u, 3, axis=1)
            z = _sigmoid(xz + uz)
            h = (1 - z) * np.tanh(xn + _sigmoid(xr + ur) * un) + z * h
        output[time] = h
    return output, h, c


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))
