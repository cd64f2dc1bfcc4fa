"""Recurrent layers on tensors: two operators in PyTorch's dispatcher, and autograd around them.

Imported by the first call with a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusewire import _native
from fusewire.ops import dispatcher
from fusewire.ops.rnn import composed, scan, sequences
from fusewire.ops.rnn.options import Options, Variant
from fusewire.ops.rnn.weights import LayerWeights, Weights, is_plain, is_torchs, name_weights

_OPERANDS = (
    "Tensor input, Tensor hidden, Tensor cell, Tensor weight_ih, Tensor weight_hh, "
    "{biases}{results}str kind, int[] batch_sizes, bool reverse"
)


def _forward_fake(
    input: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor | None,
    bias_hh: torch.Tensor | None,
    kind: str,
    batch_sizes: list[int],
    reverse: bool,
    keep: bool,
) -> tuple[torch.Tensor, ...]:
    columns = _native.rnn_saved_columns(kind, int(hidden.shape[1]))
    return (
        input.new_empty(input.shape[0], hidden.shape[1]),
        input.new_empty(hidden.shape),
        input.new_empty(cell.shape),
        input.new_empty((input.shape[0], columns) if keep else (0, 0)),
    )


def _backward_fake(
    grad_output: torch.Tensor | None,
    grad_hidden: torch.Tensor | None,
    grad_cell: torch.Tensor | None,
    input: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    output: torch.Tensor,
    saved: torch.Tensor,
    kind: str,
    batch_sizes: list[int],
    reverse: bool,
    for_input: bool,
    for_weights: bool,
) -> tuple[torch.Tensor, ...]:
    shapes = [weight_ih.shape, weight_hh.shape, weight_hh.shape[:1], weight_hh.shape[:1]]
    return (
        input.new_empty(input.shape if for_input else (0,)),
        input.new_empty(hidden.shape),
        input.new_empty(cell.shape),
        *(input.new_empty(shape if for_weights else (0,)) for shape in shapes),
    )


_forward = dispatcher.declare(
    "rnn_layer",
    "("
    + _OPERANDS.format(biases="Tensor? bias_ih, Tensor? bias_hh, ", results="")
    + ", bool keep) -> (Tensor, Tensor, Tensor, Tensor)",
    _forward_fake,
)
_backward = dispatcher.declare(
    "rnn_layer_backward",
    "(Tensor? grad_output, Tensor? grad_hidden, Tensor? grad_cell, "
    + _OPERANDS.format(biases="", results="Tensor output, Tensor saved, ")
    + ", bool for_input, bool for_weights) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward_fake,
)


_HALVES = frozenset({torch.bfloat16, torch.float16})


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: torch.Tensor,
        hidden: torch.Tensor,
        cell: torch.Tensor,
        weight_ih: torch.Tensor,
        weight_hh: torch.Tensor,
        bias_ih: torch.Tensor | None,
        bias_hh: torch.Tensor | None,
        kind: str,
        batch_sizes: list[int],
        reverse: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        operands = (input, hidden, cell, weight_ih, weight_hh, bias_ih, bias_hh)
        ctx.layout = (kind, batch_sizes, reverse)
        output, final_hidden, final_cell, saved = _forward(*operands, *ctx.layout, True)
        ctx.save_for_backward(*operands, output, saved)
        ctx.set_materialize_grads(False)
        return output, final_hidden, final_cell

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        *operands, output, saved = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:7]
        if torch.is_grad_enabled():
            kind, batch_sizes, reverse = ctx.layout

            def layer(rows: Any, hidden: Any, cell: Any, *weights: Any) -> Any:
                named = LayerWeights(*weights)
                return composed.layer(
                    rows, hidden, cell, named, Variant(kind), batch_sizes, reverse
                )

            gradients = dispatcher.gradients_of_outputs(layer, operands, grad_outputs, wanted)
        else:
            outer = [None if g is None else g.contiguous() for g in grad_outputs]
            gradients = _backward(
                *outer, *operands[:5], output, saved, *ctx.layout, wanted[0], any(wanted[3:])
            )
        of_operands = (g if needed else None for g, needed in zip(gradients, wanted, strict=True))
        return (*of_operands, None, None, None)


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
            rows: torch.Tensor, reverse: bool, states: list[torch.Tensor], entry: LayerWeights
        ) -> tuple[torch.Tensor, list[torch.Tensor]]:
            if options.is_minimal:
                return scan.layer(options.kind, batch_sizes, rows, reverse, states, entry)
            variant = sequences.draw_variant(self, options, rows, states)
            return _layer(variant, batch_sizes, rows, reverse, states, entry)

        def between(rows: torch.Tensor) -> torch.Tensor:
            if not options.locked and options.seed is None:
                return torch.nn.functional.dropout(rows, options.dropout, options.training)
            mask = sequences.draw_between(self, options, rows, batch_sizes, states[0].shape[1])
            return rows if mask is None else rows * mask

        # PyTorch's own layers know no transform either.
        steps = dispatcher.is_served(rows) or dispatcher.is_transformed()
        if not steps and is_torchs(options, weights):
            return composed.stack(options, rows, batch_sizes, states, weights)
        output, finals = sequences.each_layer(
            layer,
            partial(torch.cat, dim=1),
            between,
            rows,
            [state.unbind(0) for state in states],
            weights,
            options.directions,
        )
        return output, [torch.stack(final) for final in zip(*finals, strict=True)]

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
            self.generator = torch.Generator(like.device).manual_seed(self.seed)
        return like.new_empty(shape).bernoulli_(probability, generator=self.generator)

    def zeros(self, like: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        return like.new_zeros(shape)

    def take(self, numbers: torch.Tensor, axis: int, positions: NDArray[np.int64]) -> torch.Tensor:
        return numbers.index_select(axis, torch.from_numpy(positions).to(numbers.device))

    def put(self, rows: torch.Tensor, positions: NDArray[np.int64], count: int) -> torch.Tensor:
        output = rows.new_zeros(count, rows.shape[1])
        return output.index_copy(0, torch.from_numpy(positions).to(rows.device), rows)


def _layer(
    variant: Variant,
    batch_sizes: list[int],
    rows: torch.Tensor,
    reverse: bool,
    states: list[torch.Tensor],
    weights: LayerWeights,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """One layer in one direction on packed rows."""
    hidden = states[0]
    cell = states[1] if len(states) > 1 else hidden.new_empty(hidden.shape[0], 0)
    if not (dispatcher.is_served(rows) and variant.is_plain and is_plain(weights)):
        output, *finals = composed.layer(rows, hidden, cell, weights, variant, batch_sizes, reverse)
        return output, finals[: len(states)]
    kind = variant.kind
    operands = (rows, hidden, cell, *weights[:4])
    try:
        if dispatcher.needs_gradient(*operands):
            output, *finals = dispatcher.apply(_Layer, *operands, kind, batch_sizes, reverse)
        else:
            output, *finals = _forward(*operands, kind, batch_sizes, reverse, False)[:3]
    except (RuntimeError, AttributeError) as error:
        raise dispatcher.as_raised(
            error, input=rows, state=hidden, weight=weights.weight_ih
        ) from None
    return output, finals[: len(states)]


def run(
    options: Options,
    input: torch.Tensor,
    states: list[torch.Tensor] | None,
    weights: Sequence[Sequence[Any]],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """See :func:`fusewire.ops.rnn.sequences.run`."""
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
    engine = _Engine(options)
    weights = name_weights(options, entries)

    def layers(
        rows: torch.Tensor, states: list[torch.Tensor] | None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        initial = sequences.initial_states(engine, options, rows, states, weights, batch_sizes[0])
        sequences.check_features(rows, weights)
        return engine.stack(options, rows, batch_sizes, initial, weights)

    return _autocast(options, layers, rows, states, entries)


def _autocast(
    options: Options,
    layers: Callable[[Any, Any], tuple[torch.Tensor, list[torch.Tensor]]],
    input: torch.Tensor,
    states: list[torch.Tensor] | None,
    entries: Sequence[Sequence[Any]],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Runs layers of input and states; where autocast is on, results have the types of PyTorch's.

    Those are autocast's for an LSTM and the weights' for the others. The layers compute in the
    weights' type, which is the more exact one.
    """
    if not (input.is_cpu and torch.is_autocast_enabled("cpu")):
        return layers(input, states)
    dtype = entries[0][0].dtype
    with torch.autocast("cpu", enabled=False):
        initial = None if states is None else [state.to(dtype) for state in states]
        output, finals = layers(input.to(dtype), initial)
    if options.kind == "lstm":
        output, *finals = dispatcher.autocast(output, *finals)
    return output, finals
