"""What arrays and tensors share: layouts of batches, states and layers, and the checks of shapes.

Kernels want rows packed step by step, the longest sequence first: the rows of time 0, one for each
sequence, then those of time 1. A batch of equal lengths is that already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fusewire.ops.rnn.options import Options, Variant
from fusewire.ops.rnn.weights import (
    LayerWeights,
    Weights,
    check_entries,
    name_weights,
    needs_check,
    state_sizes,
)


class Layout(NamedTuple):
    """How the rows of a padded batch are packed."""

    batch_sizes: list[int]
    """Sequences at each time; empty where all are equally long."""
    order: NDArray[np.int64] | None
    """Sequences by decreasing length; None where nothing is reordered."""
    positions: NDArray[np.int64] | None
    """For each packed row, ``time * batch + sequence``; None where nothing is reordered."""


class Engine(Protocol):
    """What differs between arrays and tensors."""

    def stack(
        self,
        options: Options,
        rows: Any,
        batch_sizes: list[int],
        states: list[Any],
        weights: Weights,
    ) -> tuple[Any, list[Any]]:
        """Runs all layers on packed rows; states are ``(layers * directions, batch, size)``."""

    def zeros(self, like: Any, shape: tuple[int, ...]) -> Any:
        """Zeros of the kind of `like`."""

    def take(self, numbers: Any, axis: int, positions: NDArray[np.int64]) -> Any:
        """The numbers at `positions` along `axis`."""

    def put(self, rows: Any, positions: NDArray[np.int64], count: int) -> Any:
        """`count` rows: `rows` at `positions`, elsewhere zeros."""

    def draw(self, like: Any, shape: tuple[int, ...], probability: float) -> Any:
        """Ones with this probability, elsewhere zeros, of the kind of `like`."""


def run(
    engine: Engine,
    options: Options,
    input: Any,
    states: list[Any] | None,
    entries: Sequence[Sequence[Any]],
) -> tuple[Any, list[Any]]:
    """Runs layers on a padded batch; returns the output, and the final states.

    The shapes are those of :func:`fusewire.lstm`; a cell without cell state has one state.
    """
    weights = name_weights(options, entries)
    if needs_check(options, weights):
        check_entries(options, weights, input, states)
    try:
        return _run(engine, options, input, states, weights)
    except (TypeError, ValueError):
        check_entries(options, weights, input, states)
        raise


def _run(
    engine: Engine, options: Options, input: Any, states: list[Any] | None, weights: Weights
) -> tuple[Any, list[Any]]:
    if input.ndim not in (2, 3):
        raise ValueError(f"input must have 2 or 3 dimensions, but has shape {tuple(input.shape)}")
    batched = input.ndim == 3
    times = batch_times(options, input)
    seq_len, batch, input_size = times.shape
    check_features(times, weights)
    states = initial_states(engine, options, input, states, weights, batch, batched)
    layout = pack(options.lengths, seq_len, batch)
    rows = times.reshape(seq_len * batch, input_size)
    if layout.order is not None and layout.positions is not None:
        rows = engine.take(rows, 0, layout.positions)
        states = [engine.take(state, 1, layout.order) for state in states]
    output, finals = engine.stack(options, rows, layout.batch_sizes, states, weights)
    if layout.order is not None and layout.positions is not None:
        output = engine.put(output, layout.positions, seq_len * batch)
        finals = [engine.take(final, 1, np.argsort(layout.order)) for final in finals]
    output = output.reshape(seq_len, batch, options.directions * state_sizes(options, weights)[0])
    if not batched:
        return output[:, 0], [final[:, 0] for final in finals]
    return (output.swapaxes(0, 1) if options.batch_first else output), finals


def batch_times(options: Options, input: Any) -> Any:
    """An input or output as ``(seq_len, batch, size)``."""
    if input.ndim == 2:
        return input[:, None]
    return input.swapaxes(0, 1) if options.batch_first else input


def initial_states(
    engine: Engine,
    options: Options,
    like: Any,
    states: list[Any] | None,
    weights: Weights,
    batch: int,
    batched: bool = True,
) -> list[Any]:
    """The states as ``(layers * directions, batch, size)``; zeros if there are none."""
    shapes = [(len(weights), batch, size) for size in state_sizes(options, weights)]
    if states is None:
        return [engine.zeros(like, shape) for shape in shapes]
    for state, shape in zip(states, shapes, strict=True):
        expected = shape if batched else (shape[0], shape[2])
        if not hasattr(state, "shape"):
            raise TypeError(
                f"the state must be an array or a tensor like the input, but is "
                f"{type(state).__name__}"
            )
        if tuple(state.shape) != expected:
            raise ValueError(f"the state must have shape {expected}, but has {tuple(state.shape)}")
    return [state.reshape(shape) for state, shape in zip(states, shapes, strict=True)]


def check_features(input: Any, weights: Weights) -> None:
    """Checks the last dimension of what the lowest layer is given."""
    expected = tuple(weights[0].weight_ih.shape)[-1]
    if input.shape[-1] != expected:
        raise ValueError(f"input must have {expected} features, but has {input.shape[-1]}")


def pack(lengths: Any, seq_len: int, batch: int) -> Layout:
    """How to pack sequences of these lengths, None for `seq_len` each."""
    if lengths is None:
        return Layout([], None, None)
    sizes = np.asarray(lengths)
    if sizes.shape != (batch,) or (batch and sizes.dtype.kind not in "iu"):
        raise ValueError(
            f"lengths must be {batch} whole numbers, one for each sequence, but is {lengths!r}"
        )
    outside = sizes[(sizes < 0) | (sizes > seq_len)]
    if outside.size:
        raise ValueError(f"lengths must be from 0 to {seq_len}, but one is {outside[0]}")
    order = np.argsort(-sizes.astype(np.int64), kind="stable")
    exists = np.arange(seq_len)[:, None] < sizes[order]
    positions = (np.arange(seq_len)[:, None] * batch + order)[exists]
    batch_sizes = exists.sum(axis=1)
    return Layout(batch_sizes[batch_sizes > 0].tolist(), order, positions)


def draw_variant(engine: Engine, options: Options, rows: Any, states: list[Any]) -> Variant:
    """A layer's cell in one direction, with masks for the rows and states that it is given."""
    recurrent = None
    if options.training and options.recurrent_dropout:
        recurrent = _keep(engine, states[0], tuple(states[0].shape), options.recurrent_dropout)
    zoneout: list[Any] = [None, None]
    for index, (rate, state) in enumerate(zip(options.zoneout, states, strict=False)):
        if rate and options.training:
            zoneout[index] = engine.draw(rows, (rows.shape[0], state.shape[1]), rate)
        elif rate:
            zoneout[index] = float(rate)
    return Variant(options.kind, options.reset_after, recurrent, *zoneout)


def draw_between(
    engine: Engine, options: Options, rows: Any, batch_sizes: list[int], batch: int
) -> Any:
    """What dropout multiplies the rows between two layers by; None where there is no dropout."""
    if not (options.training and options.dropout):
        return None
    if not options.locked:
        return _keep(engine, rows, tuple(rows.shape), options.dropout)
    mask = _keep(engine, rows, (batch, rows.shape[1]), options.dropout)
    sizes = batch_sizes or [batch] * (rows.shape[0] // batch if batch else 0)
    owners = [np.arange(size, dtype=np.int64) for size in sizes]
    return engine.take(mask, 0, np.concatenate([np.empty(0, np.int64), *owners]))


def _keep(engine: Engine, like: Any, shape: tuple[int, ...], dropout: float) -> Any:
    mask = engine.draw(like, shape, 1 - dropout)
    return mask / (1 - dropout) if dropout < 1 else mask


def each_layer(
    layer: Callable[[Any, list[Any], Weights], tuple[Any, list[Any]]],
    join: Callable[[list[Any]], Any],
    between: Callable[[Any], Any],
    rows: Any,
    states: list[Any],
    weights: Weights,
    directions: int,
) -> tuple[Any, list[Any]]:
    """Feeds each layer the output of the one below.

    Args:
        layer: From rows, states ``(directions, batch, size)`` and weights of each direction to
            output and final states.
        join: Puts the final states of all layers behind each other.
        between: What happens to rows between two layers.
        rows: The lowest layer's input.
        states: Each ``(layers * directions, batch, size)``.
        weights: Per layer and direction.
        directions: 1 or 2.

    Returns:
        The highest layer's output, and the final states of all.
    """
    finals = []
    for first in range(0, len(weights), directions):
        if first:
            rows = between(rows)
        these = slice(first, first + directions)
        rows, final = layer(rows, [state[these] for state in states], weights[these])
        finals.append(final)
    if len(finals) == 1:
        return rows, finals[0]
    return rows, [join(list(final)) for final in zip(*finals, strict=True)]


def each_direction(
    run: Callable[[Any, bool, list[Any], LayerWeights], tuple[Any, list[Any]]],
    join: Callable[[list[Any]], Any],
    stack: Callable[[list[Any]], Any],
    rows: Any,
    states: list[Any],
    weights: Weights,
) -> tuple[Any, list[Any]]:
    """A layer whose directions run one after the other.

    Args:
        run: From rows, whether to run backwards, states and weights to output and final states.
        join: Puts the outputs of both directions side by side.
        stack: Makes one state of those of all directions.
        rows: The layer's input.
        states: Each ``(directions, batch, size)``.
        weights: Per direction.

    Returns:
        The output, and the final states.
    """
    outputs, finals = [], []
    for index, entry in enumerate(weights):
        output, final = run(rows, index > 0, [state[index] for state in states], entry)
        outputs.append(output)
        finals.append(final)
    output = outputs[0] if len(outputs) == 1 else join(outputs)
    return output, [stack(list(final)) for final in zip(*finals, strict=True)]
