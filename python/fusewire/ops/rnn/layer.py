"""A plain layer on tensors: two operators in PyTorch's dispatcher, and autograd around them.

Imported by the first call with a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from fusewire import _native
from fusewire.ops import dispatcher
from fusewire.ops.rnn import composed, sequences
from fusewire.ops.rnn.options import Variant
from fusewire.ops.rnn.weights import LayerWeights, Weights

_OPERANDS = (
    "Tensor input, Tensor hidden, Tensor cell, Tensor[] weights, "
    "{results}str kind, int[] batch_sizes"
)


def _forward_fake(
    input: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    weights: list[torch.Tensor],
    kind: str,
    batch_sizes: list[int],
    keep: bool,
) -> tuple[torch.Tensor, ...]:
    total, (*each, _, size) = input.shape[0], hidden.shape
    saved = (*each, total, _native.rnn_saved_columns(kind, int(size)))
    return (
        input.new_empty(total, math.prod(each) * size),
        input.new_empty(hidden.shape),
        input.new_empty(cell.shape),
        input.new_empty(saved if keep else [0] * len(saved)),
    )


def _backward_fake(
    grad_output: torch.Tensor | None,
    grad_hidden: torch.Tensor | None,
    grad_cell: torch.Tensor | None,
    input: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    weights: list[torch.Tensor],
    output: torch.Tensor,
    saved: torch.Tensor,
    kind: str,
    batch_sizes: list[int],
    for_input: bool,
    for_weights: bool,
) -> tuple[torch.Tensor, ...]:
    each = hidden.shape[:-2]
    of_input, of_hidden = weights[0].shape, weights[1].shape
    shapes = [of_input, of_hidden, of_hidden[:1], of_hidden[:1]]

    def place(wanted: bool, shape: torch.Size) -> torch.Tensor:
        shape = each + shape
        return input.new_empty(shape if wanted else [0] * len(shape))

    return (
        place(for_input, input.shape),
        input.new_empty(hidden.shape),
        input.new_empty(cell.shape),
        *(place(for_weights, shape) for shape in shapes),
    )


_forward = dispatcher.declare(
    "rnn_layer",
    f"({_OPERANDS.format(results='')}, bool keep) -> (Tensor, Tensor, Tensor, Tensor)",
    _forward_fake,
)
_backward = dispatcher.declare(
    "rnn_layer_backward",
    "(Tensor? grad_output, Tensor? grad_hidden, Tensor? grad_cell, "
    + _OPERANDS.format(results="Tensor output, Tensor saved, ")
    + ", bool for_input, bool for_weights) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward_fake,
)


TAKES_TENSORS = _native.takes_tensors()
"""Whether this PyTorch hands tensors to the extension module past its dispatcher."""


class _Layer(torch.autograd.Function):
    """A layer, or a step of a cell, whose states have no dimension for the directions.

    Autograd would record each of the views that give and take that dimension. A layer that is
    `direct` goes past the dispatcher, which takes longer than a step of a small one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        kind: str,
        batch_sizes: list[int],
        direct: bool,
        input: torch.Tensor,
        hidden: torch.Tensor,
        cell: torch.Tensor,
        *weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        states = (input, hidden, cell)
        ctx.layout, ctx.direct = (kind, batch_sizes), direct
        results = _native.apply_rnn_layer(ctx.layout, states, weights) if direct else None
        if results is None:
            results = _forward(*states, weights, *ctx.layout, True)
        output, final_hidden, final_cell, saved = results
        ctx.save_for_backward(output, saved, input, hidden, cell, *weights)
        ctx.set_materialize_grads(False)
        return output, final_hidden, final_cell

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        output, saved, *operands = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        gradients: Sequence[torch.Tensor | None]
        # In this order: the compiler, for which nothing is direct, knows not all of it.
        direct = ctx.direct and all(
            gradient is None or dispatcher.takes_gradient(gradient) for gradient in grad_outputs
        )
        # Our operator knows no batches of gradients, PyTorch's own do.
        batched = ctx.direct and not direct and not dispatcher.is_watched()
        if torch.is_grad_enabled() or batched:
            same = partial(_composed, *ctx.layout)
            gradients = dispatcher.differentiable_gradients(same, operands, grad_outputs, wanted)
        else:
            input, hidden, cell, *weights = operands
            outer = [None if g is None else g.contiguous() for g in grad_outputs]
            states, kinds = (input, hidden, cell), (wanted[0], any(wanted[3:]))
            found = None
            if direct:
                found = _native.apply_rnn_layer_backward(
                    ctx.layout, states, weights, (output, saved), outer, kinds
                )
            if found is None:
                found = _backward(*outer, *states, weights, output, saved, *ctx.layout, *kinds)
            rows, hidden, cell, *of_weights = found
            flat: Sequence[torch.Tensor | None] = of_weights[: len(weights)]
            if hidden.dim() == 3:
                directions = hidden.shape[0]
                rows = rows.sum(0) if directions > 1 and wanted[0] else rows.squeeze(0)
                of_weights = of_weights[: len(weights) // directions]
                each = zip(*(weight.unbind(0) for weight in of_weights), strict=True)
                unbound = [gradient for direction in each for gradient in direction]
                flat = unbound or [None] * len(weights)
            gradients = [rows, hidden, cell, *flat]
        of_operands = (g if needed else None for g, needed in zip(gradients, wanted, strict=True))
        return (None, None, None, *of_operands)


def _composed(
    kind: str,
    batch_sizes: list[int],
    rows: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    *weights: torch.Tensor,
) -> list[torch.Tensor]:
    """A layer of PyTorch's own operators: output, final hidden and final cell state."""
    if hidden.dim() == 2:
        states = hidden[None], cell[None]
        output, *finals = _composed(kind, batch_sizes, rows, *states, *weights)
        return [output, *(final[0] for final in finals)]
    count = len(weights) // hidden.shape[0]
    entries = [
        LayerWeights(*weights[first : first + count]) for first in range(0, len(weights), count)
    ]

    def run(
        rows: torch.Tensor, reverse: bool, states: list[torch.Tensor], entry: LayerWeights
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        hidden, cell = states
        output, *finals = composed.layer(
            rows, hidden, cell, entry, Variant(kind), batch_sizes, reverse
        )
        return output, finals

    output, finals = sequences.each_direction(
        run, partial(torch.cat, dim=1), torch.stack, rows, [hidden, cell], entries
    )
    return [output, *finals]


def layer(
    kind: str,
    batch_sizes: list[int],
    rows: torch.Tensor,
    states: list[torch.Tensor],
    entries: Weights,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """One plain layer on packed rows; states are ``(directions, batch, size)``."""
    if single := len(entries) == 1:
        # Each gradient would need a view that takes the dimension away again.
        states = [state.squeeze(0) for state in states]
    hidden = states[0]
    cell = states[1] if len(states) > 1 else hidden.new_empty(*hidden.shape[:-1], 0)
    weights = [weight for entry in entries for weight in entry if weight is not None]
    try:
        if dispatcher.needs_gradient(rows, *states, *weights):
            operands = (rows, hidden, cell, *weights)
            direct = TAKES_TENSORS and dispatcher.is_direct(*operands)
            output, *finals = dispatcher.apply(_Layer, kind, batch_sizes, direct, *operands)
        else:
            output, *finals = _forward(rows, hidden, cell, weights, kind, batch_sizes, False)[:3]
    except (RuntimeError, AttributeError) as error:
        raise dispatcher.as_raised(
            error, input=rows, state=hidden, weight=entries[0].weight_ih
        ) from None
    finals = finals[: len(states)]
    return output, [final.unsqueeze(0) for final in finals] if single else finals


def step(
    kind: str,
    batch_sizes: list[int],
    rows: torch.Tensor,
    states: list[torch.Tensor],
    weights: list[torch.Tensor],
) -> list[torch.Tensor]:
    """One step with gradients of plain tensors, for which nobody waits in the dispatcher.

    States ``(batch, hidden_size)`` lack the directions.
    """
    hidden = states[0]
    cell = states[1] if len(states) > 1 else hidden.new_empty(len(hidden), 0)
    try:
        operands = (rows, hidden, cell, *weights)
        results: list[torch.Tensor] = _Layer.apply(kind, batch_sizes, TAKES_TENSORS, *operands)
    except (RuntimeError, AttributeError) as error:
        raise dispatcher.as_raised(error, input=rows, state=hidden, weight=weights[0]) from None
    return list(results[1 : 1 + len(states)])
