"""Recurrent layers on NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusewire import _native
from fusewire.ops.door import check_array, is_floating
from fusewire.ops.rnn import sequences
from fusewire.ops.rnn.options import Options
from fusewire.ops.rnn.steps import StepwiseCall
from fusewire.ops.rnn.weights import LayerWeights, Weights, check_nesting, is_plain

Array = NDArray[Any]


_Gradients = tuple[Array, list[Array], tuple[Array, ...]]
"""Of a direction's input rows, initial states and weights."""


class _LayerCall(NamedTuple):
    """One layer in all its directions as it ran, for the backward pass."""

    layout: tuple[str, list[int]]
    operands: tuple[Array, ...]
    weights: list[Array]
    output: Array
    saved: Array

    def backward(
        self, grad_output: Array, grad_finals: list[Array]
    ) -> tuple[Array, list[Array], list[tuple[Array, ...]]]:
        outer = (
            np.ascontiguousarray(grad_output),
            *map(np.ascontiguousarray, grad_finals),
            *[None] * (2 - len(grad_finals)),
        )
        grad_rows, hidden, cell, *weights = _native.rnn_layer_backward(
            self.layout, self.operands, self.weights, (self.output, self.saved), outer
        )
        directions = len(hidden)
        count = len(self.weights) // directions
        of_weights = [tuple(weight[i] for weight in weights[:count]) for i in range(directions)]
        return grad_rows.sum(0), [hidden, cell], of_weights


class _DirectionsCall(NamedTuple):
    """The same for directions that ran one after the other."""

    calls: list[_ScanCall | StepwiseCall]

    def backward(
        self, grad_output: Array, grad_finals: list[Array]
    ) -> tuple[Array, list[Array], list[tuple[Array, ...]]]:
        parts = np.split(grad_output, len(self.calls), axis=1)
        gradients = [
            call.backward(
                np.ascontiguousarray(part),
                [np.ascontiguousarray(gradient[index]) for gradient in grad_finals],
            )
            for index, (call, part) in enumerate(zip(self.calls, parts, strict=True))
        ]
        rows, states, weights = zip(*gradients, strict=True)
        return sum(rows[1:], rows[0]), [np.stack(s) for s in zip(*states, strict=True)], [*weights]


class _ScanCall(NamedTuple):
    """The same for a cell whose gates do not see the last state."""

    layout: tuple[str, list[int], bool]
    rows: Array
    weights: LayerWeights
    gates: Array
    hidden: Array
    output: Array

    def backward(self, grad_output: Array, grad_finals: list[Array]) -> _Gradients:
        outer = (grad_output, grad_finals[0] if grad_finals else None)
        of_gates, hidden = _native.rnn_scan_backward(
            self.layout, self.gates, self.hidden, self.output, outer
        )
        weight, bias = self.weights.weight_ih, self.weights.bias_ih
        grad_rows, *weights = _native.linear_backward(
            of_gates, self.rows, weight, bias, None, "identity"
        )
        return grad_rows, [hidden], tuple(weights[: 1 if bias is None else 2])


class _Engine:
    """Runs kernels on arrays; with `keeps`, remembers what the backward pass needs."""

    def __init__(self, options: Options, keeps: bool = False) -> None:
        self.keeps = keeps
        self.calls: list[_LayerCall | _DirectionsCall] = []
        self.masks: list[Array | None] = []
        self.random = (
            None
            if options.seed is None
            else np.random.Generator(np.random.Philox(int(options.seed) % 2**64))
        )

    def stack(
        self,
        options: Options,
        rows: Array,
        batch_sizes: list[int],
        states: list[Array],
        weights: Weights,
    ) -> tuple[Array, list[Array]]:
        def layer(rows: Array, states: list[Array], entries: Weights) -> tuple[Array, list[Array]]:
            if options.is_plain and all(map(is_plain, entries)):
                return self._layer(options.kind, batch_sizes, rows, states, entries)
            return self._directions(options, batch_sizes, rows, states, entries)

        def between(rows: Array) -> Array:
            batch = states[0].shape[1]
            self.masks.append(sequences.draw_between(self, options, rows, batch_sizes, batch))
            return rows if self.masks[-1] is None else rows * self.masks[-1]

        return sequences.each_layer(
            layer, np.concatenate, between, rows, states, weights, options.directions
        )

    def draw(self, like: Array, shape: tuple[int, ...], probability: float) -> Array:
        if self.random is None:
            raise ValueError("dropout and zoneout of arrays need a seed, as their gradients do")
        return (self.random.random(shape) < probability).astype(like.dtype)

    def _layer(
        self,
        kind: str,
        batch_sizes: list[int],
        rows: Array,
        states: list[Array],
        entries: Weights,
    ) -> tuple[Array, list[Array]]:
        hidden, *cell = states
        no_cell = np.empty((*hidden.shape[:2], 0), hidden.dtype)
        operands = (rows, hidden, *(cell or [no_cell]))
        weights = [weight for entry in entries for weight in entry if weight is not None]
        layout = (kind, batch_sizes)
        output, *finals, saved = _native.rnn_layer(layout, operands, weights, self.keeps)
        if self.keeps:
            self.calls.append(_LayerCall(layout, operands, weights, output, saved))
        return output, finals[: len(states)]

    def _directions(
        self,
        options: Options,
        batch_sizes: list[int],
        rows: Array,
        states: list[Array],
        entries: Weights,
    ) -> tuple[Array, list[Array]]:
        batch = states[0].shape[1]
        sizes = batch_sizes or [batch] * (len(rows) // batch if batch else 0)
        calls: list[_ScanCall | StepwiseCall] = []

        def run(
            rows: Array, reverse: bool, states: list[Array], entry: LayerWeights
        ) -> tuple[Array, list[Array]]:
            call: _ScanCall | StepwiseCall
            if options.is_minimal:
                call, finals = _scan(options.kind, batch_sizes, rows, reverse, states, entry)
            else:
                variant = sequences.draw_variant(self, options, rows, states)
                call = StepwiseCall(variant, sizes, reverse, rows, states, entry)
                finals = call.finals
            calls.append(call)
            return call.output, finals

        results = sequences.each_direction(
            run, partial(np.concatenate, axis=1), np.stack, rows, states, entries
        )
        if self.keeps:
            self.calls.append(_DirectionsCall(calls))
        return results

    def zeros(self, like: Array, shape: tuple[int, ...]) -> Array:
        return np.zeros(shape, like.dtype)

    def take(self, numbers: Array, axis: int, positions: NDArray[np.int64]) -> Array:
        return np.take(numbers, positions, axis)

    def put(self, rows: Array, positions: NDArray[np.int64], count: int) -> Array:
        output = np.zeros((count, rows.shape[1]), rows.dtype)
        output[positions] = rows
        return output


def _scan(
    kind: str,
    batch_sizes: list[int],
    rows: Array,
    reverse: bool,
    states: list[Array],
    weights: LayerWeights,
) -> tuple[_ScanCall, list[Array]]:
    gates = _native.linear(rows, weights.weight_ih, weights.bias_ih, "identity")
    layout = (kind, batch_sizes, reverse)
    hidden = np.ascontiguousarray(states[0])
    output, last = _native.rnn_scan(layout, gates, hidden)
    return _ScanCall(layout, rows, weights, gates, hidden, output), [last]


def run(
    options: Options, input: Array, states: list[Array] | None, weights: Sequence[Sequence[Any]]
) -> tuple[Array, list[Array]]:
    """See :func:`fusewire.ops.rnn.sequences.run`."""
    check_arrays(input, states, weights)
    narrow = input.dtype
    if _is_narrow(narrow):
        output, finals = run(options, *_widened(input, states, weights))
        return output.astype(narrow), [final.astype(narrow) for final in finals]
    return sequences.run(_Engine(options), options, input, states, weights)


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
    for name, gradient in [("grad_output", grad_output), *_named("grad_state", grad_states)]:
        if check_array(gradient, name).dtype != input.dtype:
            raise TypeError(f"{name} must be {input.dtype} like the input, but is {gradient.dtype}")
    narrow = input.dtype
    if _is_narrow(narrow):
        outer = None if grad_states is None else [g.astype(np.float32) for g in grad_states]
        wide = _widened(input, states, weights)
        grads = backward(options, grad_output.astype(np.float32), outer, *wide)
        of_weights = [tuple(w.astype(narrow) for w in entry) for entry in grads[2]]
        return grads[0].astype(narrow), [g.astype(narrow) for g in grads[1]], of_weights
    engine = _Engine(options, keeps=True)
    output, finals = sequences.run(engine, options, input, states, weights)
    for (name, gradient), of in zip(
        [("grad_output", grad_output), *_named("grad_state", grad_states)],
        [output, *finals],
        strict=bool(grad_states),
    ):
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
    grad_rows, grad_initial, grad_weights = _backward_stack(engine, rows, outer)
    if layout.order is not None and layout.positions is not None:
        grad_rows = engine.put(grad_rows, layout.positions, seq_len * batch)
        grad_initial = [gradient[:, np.argsort(layout.order)] for gradient in grad_initial]
    grad_times = grad_rows.reshape(seq_len, batch, -1 if grad_rows.size else input.shape[-1])
    count = 2 if options.kind == "lstm" else 1
    if input.ndim == 2:
        return grad_times[:, 0], [gradient[:, 0] for gradient in grad_initial[:count]], grad_weights
    grad_input = grad_times.swapaxes(0, 1) if options.batch_first else grad_times
    return grad_input, grad_initial[:count], grad_weights


def backward_single(
    options: Options,
    grad_output: Array,
    grad_state: Array | None,
    input: Array,
    state: Array | None,
    weights: Sequence[Sequence[Any]],
) -> tuple[Array, Array, list[tuple[Array, ...]]]:
    """:func:`backward` of a cell with a single state."""
    outer = None if grad_state is None else [grad_state]
    initial = None if state is None else [state]
    grad_input, (hidden,), grad_weights = backward(
        options, grad_output, outer, input, initial, weights
    )
    return grad_input, hidden, grad_weights


def _backward_stack(
    engine: _Engine, rows: Array, grad_finals: list[Array]
) -> tuple[Array, list[Array], list[tuple[Array, ...]]]:
    """From the gradients of the highest layer's output and all final states, the highest first."""
    states: list[list[Array]] = []
    weights: list[tuple[Array, ...]] = []
    layers = len(engine.calls)
    of_layers = zip(*(np.split(gradient, layers) for gradient in grad_finals), strict=True)
    outer: list[list[Array]] = [list(of_layer) for of_layer in of_layers] or [[]] * layers
    for index in reversed(range(layers)):
        rows, of_states, of_weights = engine.calls[index].backward(rows, outer[index])
        states.insert(0, of_states)
        weights[:0] = of_weights
        mask = engine.masks.pop() if index else None
        if mask is not None:
            rows = rows * mask
    return rows, [np.concatenate(state) for state in zip(*states, strict=True)], weights


def _is_narrow(dtype: np.dtype[Any]) -> bool:
    """Whether numbers are float16 or bfloat16, which are computed in float32."""
    return dtype.itemsize == 2 and is_floating(dtype)


def _widened(
    input: Array, states: list[Array] | None, weights: Sequence[Sequence[Any]]
) -> tuple[Array, list[Array] | None, list[Sequence[Any]]]:
    """Operands of 16 bits in float32."""
    for operand in [*(states or []), *(weight for entry in weights for weight in entry)]:
        if operand is not None and operand.dtype != input.dtype:
            raise TypeError(
                f"states and weights must be {input.dtype} like the input, but one is "
                f"{operand.dtype}"
            )
    wide: list[Sequence[Any]] = []
    for entry in weights:
        single = [None if weight is None else weight.astype(np.float32) for weight in entry]
        wide.append(LayerWeights(*single) if isinstance(entry, LayerWeights) else single)
    initial = None if states is None else [state.astype(np.float32) for state in states]
    return input.astype(np.float32), initial, wide


def _named(name: str, arrays: Sequence[Array] | None) -> list[tuple[str, Array]]:
    return [(name, array) for array in arrays or []]


def check_arrays(input: Any, states: Any, weights: Sequence[Sequence[Any]]) -> None:
    """Checks that everything is an array."""
    check_nesting(weights)
    named = [("input", input), *_named("the state", states)]
    named += [
        ("each weight", weight) for entry in weights for weight in entry if weight is not None
    ]
    for name, array in named:
        check_array(array, name)
