"""Recurrent cells as they are defined, in float64: the truth that tests compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusewire.ops.rnn.options import EPSILON
from fusewire.ops.rnn.weights import LayerWeights

Array = NDArray[np.float64]


def layer(
    kind: str,
    input: NDArray[Any],
    hidden: NDArray[Any],
    cell: NDArray[Any],
    weights: Sequence[NDArray[Any] | None],
    reverse: bool = False,
    *,
    reset_after: bool = True,
    recurrent: NDArray[Any] | None = None,
    zoneout: tuple[float, float] = (0.0, 0.0),
) -> tuple[Array, Array, Array]:
    """One layer in one direction: output, final hidden and final cell state.

    Args:
        kind: The cell.
        input: ``(seq_len, batch, input_size)``.
        hidden: ``(batch, hidden_size)``.
        cell: ``(batch, hidden_size)``; returned as it is where there is none.
        weights: As :class:`fusewire.ops.rnn.LayerWeights` orders them.
        reverse: Whether to run from the last step to the first.
        reset_after: Whether a GRU's reset gate scales the product, not the state before it.
        recurrent: What the hidden state is multiplied by before its product.
        zoneout: The share of the hidden and of the cell state that stays as it was.
    """
    w = LayerWeights(*(None if weight is None else weight.astype(np.float64) for weight in weights))
    h, c = hidden.astype(np.float64), cell.astype(np.float64)
    output = np.empty((*input.shape[:2], h.shape[1]))
    times = range(len(input))
    for time in reversed(times) if reverse else times:
        x = _affine(kind, input[time].astype(np.float64) @ w.weight_ih.T, w.norm_ih, w.bias_ih)
        masked = h if recurrent is None else h * recurrent
        u = _affine(kind, masked @ w.weight_hh.T, w.norm_hh, w.bias_hh)
        next_c = c
        if kind == "tanh":
            next_h = np.tanh(x + u)
        elif kind == "relu":
            next_h = np.maximum(x + u, 0)
        elif kind == "lstm":
            i, f, g, o = np.split(x + u, 4, axis=1)
            p = np.zeros((3, 1)) if w.peephole is None else w.peephole
            next_c = _sigmoid(f + p[1] * c) * c + _sigmoid(i + p[0] * c) * np.tanh(g)
            shown = next_c if w.norm_cell is None else _unit(next_c) * w.norm_cell
            shown = shown if w.bias_cell is None else shown + w.bias_cell
            next_h = _sigmoid(o + p[2] * next_c) * np.tanh(shown)
        else:
            (xr, xz, xn), (ur, uz, un) = np.split(x, 3, axis=1), np.split(u, 3, axis=1)
            r, z = _sigmoid(xr + ur), _sigmoid(xz + uz)
            if reset_after:
                n = np.tanh(xn + r * un)
            else:
                inner = (r * masked) @ w.weight_hh.T
                n = np.tanh(xn + np.split(_affine(kind, inner, w.norm_hh, w.bias_hh), 3, axis=1)[2])
            next_h = (1 - z) * n + z * h
        if w.weight_hr is not None:
            next_h = next_h @ w.weight_hr.T
        h = zoneout[0] * h + (1 - zoneout[0]) * next_h
        c = zoneout[1] * c + (1 - zoneout[1]) * next_c
        output[time] = h
    return output, h, c


def _affine(kind: str, product: Array, gain: Array | None, bias: Array | None) -> Array:
    """Gates' sums: with a gain, normalised together, a GRU's candidate apart."""
    if gain is not None:
        gates = product.shape[1] // 3 * 2 if kind == "gru" else product.shape[1]
        parts = np.split(product, [gates], axis=1)
        product = np.concatenate([_unit(part) for part in parts if part.shape[1]], axis=1) * gain
    return product if bias is None else product + bias


def _unit(rows: Array) -> Array:
    centred = rows - rows.mean(axis=1, keepdims=True)
    unit: Array = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
    return unit


def scan(
    kind: str, gates: NDArray[Any], hidden: NDArray[Any], reverse: bool = False
) -> tuple[Array, Array]:
    """MinGRU or minLSTM in one direction: output and final state.

    Args:
        kind: The cell.
        gates: The gates' sums, ``(seq_len, batch, gates * hidden_size)``.
        hidden: ``(batch, hidden_size)``.
        reverse: Whether to run from the last step to the first.
    """
    h = hidden.astype(np.float64)
    output = np.empty((*gates.shape[:2], h.shape[1]))
    times = range(len(gates))
    for time in reversed(times) if reverse else times:
        *sums, c = np.split(gates[time].astype(np.float64), 3 if "lstm" in kind else 2, axis=1)
        if kind.endswith("_positive"):
            c = np.where(c < 0, _sigmoid(c), c + 0.5)
        if "lstm" in kind:
            f, i = map(_sigmoid, sums)
            h = (f * h + i * c) / (f + i)
        else:
            z = _sigmoid(sums[0])
            h = (1 - z) * h + z * c
        output[time] = h
    return output, h


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))
