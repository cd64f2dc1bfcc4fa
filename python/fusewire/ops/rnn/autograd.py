"""Recurrent layers on tensors: whole stacks, by kernels or composed of PyTorch's operators.

Imported by the first call with a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusewire import _native
from fusewire.ops import dispatcher, twice
from fusewire.ops.rnn import composed, scan, sequences
from fusewire.ops.rnn import layer as kernels
from fusewire.ops.rnn.options import Options
from fusewire.ops.rnn.weights import (
    LayerWeights,
    Weights,
    check_entries,
    check_nesting,
    is_plain,
    is_torchs,
    name_weights,
    needs_check,
)

_HALVES = frozenset({torch.bfloat16, torch.float16})
_IN_AUTOCASTS_TYPE = frozenset({"lstm", "tanh", "relu"})


class _Engine:
    """Runs kernels on tensors."""

    def __init__(self, options: Options) -> None:
        self.generator: torch.Generator | None = None
        self.seed = options.seed

    def stack(
        self,
        options: Options,
        rows: torch.Tensor,
        batch_sizes: list[int],
        states: list[torch.Tensor],
        weights: Weights,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        if rows.dtype in _HALVES and dispatcher.is_served(rows.new_empty(0, dtype=torch.float32)):
            return self._in_single_precision(options, rows, batch_sizes, states, weights)

        def layer(
            rows: torch.Tensor, states: list[torch.Tensor], entries: Weights
        ) -> tuple[torch.Tensor, list[torch.Tensor]]:
            if served and options.is_plain and all(map(is_plain, entries)):
                return kernels.layer(options.kind, batch_sizes, rows, states, entries)
            return sequences.each_direction(
                partial(self._direction, options, batch_sizes),
                partial(torch.cat, dim=1),
                torch.stack,
                rows,
                states,
                entries,
            )

        def between(rows: torch.Tensor) -> torch.Tensor:
            if not options.locked and options.seed is None:
                return torch.nn.functional.dropout(rows, options.dropout, options.training)
            mask = sequences.draw_between(self, options, rows, batch_sizes, states[0].shape[1])
            return rows if mask is None else rows * mask

        def layers(
            rows: torch.Tensor, states: list[torch.Tensor], weights: Weights
        ) -> tuple[torch.Tensor, list[torch.Tensor]]:
            return sequences.each_layer(
                layer, torch.cat, between, rows, states, weights, options.directions
            )

        # PyTorch's own layers know no transform either.
        served = dispatcher.is_served(rows)
        if not (served or dispatcher.is_transformed()) and is_torchs(options, weights):
            return self._elsewhere(options, batch_sizes, layers, rows, states, weights)
        return layers(rows, states, weights)

    def _elsewhere(
        self,
        options: Options,
        batch_sizes: list[int],
        layers: Callable[..., tuple[torch.Tensor, list[torch.Tensor]]],
        rows: torch.Tensor,
        states: list[torch.Tensor],
        weights: Weights,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """PyTorch's own layers, whose gradients can be differentiated again but for dropout."""
        if options.training and options.dropout:
            return composed.stack(options, rows, batch_sizes, states, weights)
        count, width = len(states), len(LayerWeights._fields)

        def by(
            run: Callable[..., tuple[torch.Tensor, list[torch.Tensor]]], *operands: Any
        ) -> list[torch.Tensor]:
            rows, states, flat = operands[0], operands[1 : 1 + count], operands[1 + count :]
            entries = [LayerWeights(*flat[i : i + width]) for i in range(0, len(flat), width)]
            output, finals = run(rows, list(states), entries)
            return [output, *finals]

        def stack(
            rows: torch.Tensor, states: list[torch.Tensor], weights: Weights
        ) -> tuple[torch.Tensor, list[torch.Tensor]]:
            return composed.stack(options, rows, batch_sizes, states, weights)

        flat = [weight for entry in weights for weight in entry]
        output, *finals = twice.differentiable(
            partial(by, stack), partial(by, layers), (rows, *states, *flat)
        )
        return output, finals

    def _direction(
        self,
        options: Options,
        batch_sizes: list[int],
        rows: torch.Tensor,
        reverse: bool,
        states: list[torch.Tensor],
        entry: LayerWeights,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        if options.is_minimal:
            return scan.layer(options.kind, batch_sizes, rows, reverse, states, entry)
        variant = sequences.draw_variant(self, options, rows, states)
        hidden = states[0]
        cell = states[1] if len(states) > 1 else hidden.new_empty(hidden.shape[0], 0)
        output, *finals = composed.layer(rows, hidden, cell, entry, variant, batch_sizes, reverse)
        return output, finals[: len(states)]

    def _in_single_precision(
        self,
        options: Options,
        rows: torch.Tensor,
        batch_sizes: list[int],
        states: list[torch.Tensor],
        weights: Weights,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Runs operands of 16 bits through float32."""
        for operand in [*states, *(weight for entry in weights for weight in entry)]:
            if operand is not None and operand.dtype != rows.dtype:
                raise TypeError(
                    f"states and weights must be {rows.dtype} like the input, "
                    f"but one is {operand.dtype}"
                )
        wide = [
            LayerWeights(*(None if weight is None else weight.float() for weight in entry))
            for entry in weights
        ]
        output, finals = self.stack(
            options, rows.float(), batch_sizes, [state.float() for state in states], wide
        )
        return output.to(rows.dtype), [final.to(rows.dtype) for final in finals]

    def draw(self, like: torch.Tensor, shape: tuple[int, ...], probability: float) -> torch.Tensor:
        if self.seed is not None and self.generator is None:
            self.generator = torch.Generator(like.device).manual_seed(int(self.seed))
        return like.new_empty(shape).bernoulli_(probability, generator=self.generator)

    def zeros(self, like: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        return like.new_zeros(shape)

    def take(self, numbers: torch.Tensor, axis: int, positions: NDArray[np.int64]) -> torch.Tensor:
        return numbers.index_select(axis, torch.from_numpy(positions).to(numbers.device))

    def put(self, rows: torch.Tensor, positions: NDArray[np.int64], count: int) -> torch.Tensor:
        output = rows.new_zeros(count, rows.shape[1])
        return output.index_copy(0, torch.from_numpy(positions).to(rows.device), rows)


def run_plain(
    options: Options,
    input: torch.Tensor,
    batch_sizes: list[int],
    states: list[torch.Tensor] | None,
    entries: Sequence[Sequence[Any]],
) -> tuple[torch.Tensor, list[torch.Tensor]] | None:
    """Runs layers of `torch.nn` without gradients, past PyTorch's dispatcher.

    What lies between Python and a kernel takes longer than a step of a small layer.

    Args:
        options: What is asked for.
        input: Packed rows, or a padded batch.
        batch_sizes: Those of packed rows; empty for a padded batch.
        states: The initial states; zeros if None.
        entries: Two or four weights for each layer and direction.

    Returns:
        The output and the final states; None where the operands are not for our kernels as they
        are, or the dispatcher must see the call.
    """
    if not kernels.TAKES_TENSORS or options.lengths is not None or not options.is_plain:
        return None
    if options.training and options.dropout:
        return None
    initial = states or []
    try:
        operands = [input, *initial, *chain.from_iterable(entries)]
    except TypeError:
        check_nesting(entries)
        raise
    if not dispatcher.PLAIN.issuperset(map(type, operands)):
        return None
    if dispatcher.is_watched() or dispatcher.needs_gradient(*operands):
        return None
    swaps = options.batch_first and not batch_sizes and input.ndim == 3
    rows = (input.transpose(0, 1) if swaps else input).contiguous()
    try:
        results = _native.rnn_layers(
            options.kind,
            batch_sizes,
            options.directions,
            rows,
            initial,
            entries,
        )
    except (TypeError, ValueError):
        check_entries(options, name_weights(options, entries), input, states)
        raise
    if results is None:
        return None
    output, *finals = results
    return output.transpose(0, 1) if swaps else output, finals


def run(
    options: Options,
    input: torch.Tensor,
    states: list[torch.Tensor] | None,
    weights: Sequence[Sequence[Any]],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """See :func:`fusewire.ops.rnn.sequences.run`."""
    if (results := run_plain(options, input, [], states, weights)) is not None:
        return results
    _check_input(input)
    return _autocast(
        options,
        lambda x, states: sequences.run(_Engine(options), options, x, states, weights),
        input,
        states,
        weights,
    )


def run_packed(
    options: Options,
    rows: torch.Tensor,
    batch_sizes: list[int],
    states: list[torch.Tensor] | None,
    entries: Sequence[Sequence[Any]],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Runs layers on rows as `torch.nn.utils.rnn.PackedSequence` holds them.

    States are ``(layers * directions, batch, size)`` in the order of the packed sequences.
    """
    if not batch_sizes:
        raise ValueError("a packed sequence must have at least one step")
    if (results := run_plain(options, rows, batch_sizes, states, entries)) is not None:
        return results
    _check_input(rows)
    engine = _Engine(options)
    weights = name_weights(options, entries)

    def layers(
        rows: torch.Tensor, states: list[torch.Tensor] | None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        batch = batch_sizes[0]
        if needs_check(options, weights):
            check_entries(options, weights, rows, states)
        try:
            initial = sequences.initial_states(engine, options, rows, states, weights, batch)
            sequences.check_features(rows, weights)
            return engine.stack(options, rows, batch_sizes, initial, weights)
        except (TypeError, ValueError):
            check_entries(options, weights, rows, states)
            raise

    return _autocast(options, layers, rows, states, entries)


def _check_input(input: Any) -> None:
    if not isinstance(input, torch.Tensor):
        raise TypeError(f"input must be a PyTorch tensor, but is {type(input).__name__}")
    if not input.is_floating_point():
        named = str(input.dtype).removeprefix("torch.")
        raise TypeError(f"input must be float32, float64, bfloat16 or float16, but is {named}")


def run_step(
    kind: str,
    input: torch.Tensor,
    states: list[torch.Tensor] | None,
    weights: list[torch.Tensor],
) -> list[torch.Tensor]:
    """Runs one step of a plain cell.

    Args:
        kind: Which cell.
        input: ``(batch, input_size)``.
        states: The last states, each ``(batch, hidden_size)``; zeros if None.
        weights: Two, or four with biases.

    Returns:
        The next states.
    """
    given = states or []
    operands = [input, *given, *weights]
    batch_sizes = [input.shape[0]]
    if dispatcher.is_direct(*operands):
        if not dispatcher.needs_gradient(*operands):
            following = _step_past_dispatcher(kind, batch_sizes, input, given, weights)
            if following is not None:
                return following
        # Packed rows, which the kernel takes these for, may be fewer than the states.
        elif dispatcher.is_served(input) and all(
            state.shape[:-1] == input.shape[:1] for state in given
        ):
            if not given:
                zeros = input.new_zeros(len(input), weights[1].shape[1])
                given = [zeros, zeros] if kind == "lstm" else [zeros]
            return kernels.step(kind, batch_sizes, input, given, weights)
    initial = None if states is None else [state[None] for state in states]
    # Packed rows of one step, whose output is the hidden state: each view would cost a microsecond.
    hidden, finals = run_packed(Options(kind), input, batch_sizes, initial, [weights])
    return [hidden, *(final[0] for final in finals[1:])]


def _step_past_dispatcher(
    kind: str,
    batch_sizes: list[int],
    input: torch.Tensor,
    states: list[torch.Tensor],
    weights: list[torch.Tensor],
) -> list[torch.Tensor] | None:
    """A step without gradients; None where the operands are not for our kernels as they are."""
    if not kernels.TAKES_TENSORS:
        return None
    initial = [state[None] for state in states]
    results = _native.rnn_layers(kind, batch_sizes, 1, input.contiguous(), initial, [weights])
    if results is None:
        return None
    hidden, _, *others = results
    return [hidden, *(final[0] for final in others)]


def _autocast(
    options: Options,
    layers: Callable[[Any, Any], tuple[torch.Tensor, list[torch.Tensor]]],
    input: torch.Tensor,
    states: list[torch.Tensor] | None,
    entries: Sequence[Sequence[Any]],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Runs layers of input and states; where autocast is on, results have the types of PyTorch's.

    Those are the weights' for a GRU and autocast's for the others. The layers compute in the
    weights' type, which is the more exact one.
    """
    if not (input.is_cpu and torch.is_autocast_enabled("cpu")):
        return layers(input, states)
    dtype = entries[0][0].dtype
    with torch.autocast("cpu", enabled=False):
        initial = None if states is None else [state.to(dtype) for state in states]
        output, finals = layers(input.to(dtype), initial)
    if options.kind in _IN_AUTOCASTS_TYPE:
        output, *finals = dispatcher.autocast(output, *finals)
    return output, finals
