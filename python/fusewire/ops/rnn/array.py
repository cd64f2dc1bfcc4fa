"""Recurrent layers on NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusewire import _native
from fusewire.ops.rnn import sequences
from fusewire.ops.rnn.sequences import LayerWeights, Options, Weights

Array = NDArray[Any]


class _Call(NamedTuple):
    """One layer in one direction as it ran, for the backward pass."""

    layout: tuple[str, list[int], bool]
    operands: tuple[Array | None, ...]
    output: Array
    saved: Array


class _Engine:
    """Runs kernels on arrays; with `keeps`, remembers what the backward pass needs."""

    def __init__(self, keeps: bool = False) -> None:
        self.keeps = keeps
        self.calls: list[_Call] = []

    def stack(
        self,
        options: Options,
        rows: Array,
        batch_sizes: list[int],
        states: list[Array],
        weights: Weights,
    ) -> tuple[Array, list[Array]]:
        if options.training and options.dropout and len(weights) > options.directions:
            raise ValueError("dropout needs tensors: on arrays it would leave no gradient")
        if weights[0].weight_hr is not None:
            raise ValueError("projections need tensors")
        output, finals = sequences.each_layer(
            partial(self._layer, options.kind, batch_sizes),
            partial(np.concatenate, axis=1),
            lambda rows: rows,
            rows,
            states,
            weights,
            options.directions,
        )
        return output, [np.stack(final) for final in zip(*finals, strict=True)]

    def _layer(
        self,
        kind: str,
        batch_sizes: list[int],
        rows: Array,
        reverse: bool,
        states: list[Array],
        weights: LayerWeights,
    ) -> tuple[Array, list[Array]]:
        hidden, *cell = states
        no_cell = np.empty((len(hidden), 0), hidden.dtype)
        operands = (rows, hidden, *(cell or [no_cell]), *weights[:4])
        layout = (kind, batch_sizes, reverse)
        output, *finals, saved = _native.rnn_layer(layout, operands, self.keeps)
        if self.keeps:
            self.calls.append(_Call(layout, operands, output, saved))
        return output, finals[: len(states)]

    def zeros(self, like: Array, shape: tuple[int, ...]) -> Array:
        return np.zeros(shape, like.dtype)

    def take(self, numbers: Array, axis: int, positions: NDArray[np.int64]) -> Array:
        return np.take(numbers, positions, axis)

    def put(self, rows: Array, positions: NDArray[np.int64], count: int) -> Array:
        output = np.zeros((count, rows.shape[1]), rows.dtype)
        output[positions] = rows
        return output


def run(
    options: Options, input: Array, states: list[Array] | None, weights: Sequence[Sequence[Any]]
) -> tuple[Array, list[Array]]:
    """See :func:`fusewire.ops.rnn.sequences.run`."""
    check_arrays(input, states, weights)
    return sequences.run(_Engine(), options, input, states, weights)


def backward(
    options: Options,
    grad_output: Array,
    grad_states: list[Array] | None,
    input: Array,
    states: list[Array] | None,
    weights: Sequence[Sequence[Any]],
) -> tuple[Array, list[Array], list[tuple[Array, ...]]]:
    """The gradients of input, initial states and weights, shaped like them.

    The forward pass is computed once more, so that nothing has to be kept between the two calls.
    """
    check_arrays(input, states, weights)
    check_arrays(grad_output, grad_states, [])
    engine = _Engine(keeps=True)
    output, finals = sequences.run(engine, options, input, states, weights)
    for name, gradient, of in [
        ("grad_output", grad_output, output),
        *(
            ("grad_state", g, f)
            for g, f in zip(grad_states or [], finals, strict=bool(grad_states))
        ),
    ]:
        if gradient.shape != of.shape:
            raise ValueError(f"{name} must have shape {of.shape}, but has {gradient.shape}")
    times = sequences.batch_times(options, grad_output)
    seq_len, batch, width = times.shape
    layout = sequences.pack(options.lengths, seq_len, batch)
    rows = times.reshape(seq_len * batch, width)
    outer = [g if input.ndim == 3 else g[:, None] for g in grad_states or []]
    if layout.order is not None:
        rows = rows[layout.positions]
        outer = [gradient[:, layout.order] for gradient in outer]
    grad_rows, grad_initial, grad_weights = _backward_stack(
        engine.calls, options.directions, rows, outer
    )
    if layout.order is not None and layout.positions is not None:
        grad_rows = engine.put(grad_rows, layout.positions, seq_len * batch)
        grad_initial = [gradient[:, np.argsort(layout.order)] for gradient in grad_initial]
    grad_times = grad_rows.reshape(seq_len, batch, -1 if grad_rows.size else input.shape[-1])
    count = 2 if options.kind == "lstm" else 1
    if input.ndim == 2:
        return grad_times[:, 0], [gradient[:, 0] for gradient in grad_initial[:count]], grad_weights
    grad_input = grad_times.swapaxes(0, 1) if options.batch_first else grad_times
    return grad_input, grad_initial[:count], grad_weights


def _backward_stack(
    calls: list[_Call], directions: int, rows: Array, grad_finals: list[Array]
) -> tuple[Array, list[Array], list[tuple[Array, ...]]]:
    """From the gradients of the highest layer's output and all final states, the highest first."""
    states: list[tuple[Array, Array]] = []
    weights: list[tuple[Array, ...]] = []
    for first in range(len(calls) - directions, -1, -directions):
        below = []
        for index, part in reversed(list(enumerate(np.split(rows, directions, axis=1), first))):
            call = calls[index]
            outer = [np.ascontiguousarray(gradient[index]) for gradient in grad_finals]
            gradients = (np.ascontiguousarray(part), *outer, *[None] * (2 - len(outer)))
            grad_rows, hidden, cell, *parameters = _native.rnn_layer_backward(
                call.layout, call.operands, (call.output, call.saved), gradients
            )
            below.append(grad_rows)
            states.insert(0, (hidden, cell))
            weights.insert(0, tuple(parameters[: 4 if call.operands[-1] is not None else 2]))
        rows = sum(below[1:], below[0])
    return rows, [np.stack(state) for state in zip(*states, strict=True)], weights


def check_arrays(input: Any, states: Any, weights: Sequence[Sequence[Any]]) -> None:
    """Checks that everything is an array."""
    named = [("input", input), *(("the state", state) for state in states or [])]
    named += [
        ("each weight", weight) for entry in weights for weight in entry if weight is not None
    ]
    for name, array in named:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} must be a NumPy array, but is {type(array).__name__}")
