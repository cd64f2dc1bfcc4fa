"""minGRU and minLSTM on tensors: a linear layer, and a scan with its own two operators.

Imported by the first call with a tensor.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fusewire.ops import dispatcher
from fusewire.ops.linear.autograd import linear
from fusewire.ops.rnn import composed
from fusewire.ops.rnn.weights import LayerWeights

_OPERANDS = "Tensor gates, Tensor hidden, {output}str kind, int[] batch_sizes, bool reverse"


def _forward_fake(
    gates: torch.Tensor,
    hidden: torch.Tensor,
    kind: str,
    batch_sizes: list[int],
    reverse: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return gates.new_empty(gates.shape[0], hidden.shape[1]), gates.new_empty(hidden.shape)


def _backward_fake(
    grad_output: torch.Tensor | None,
    grad_hidden: torch.Tensor | None,
    gates: torch.Tensor,
    hidden: torch.Tensor,
    output: torch.Tensor,
    kind: str,
    batch_sizes: list[int],
    reverse: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return gates.new_empty(gates.shape), gates.new_empty(hidden.shape)


_forward = dispatcher.declare(
    "rnn_scan", f"({_OPERANDS.format(output='')}) -> (Tensor, Tensor)", _forward_fake
)
_backward = dispatcher.declare(
    "rnn_scan_backward",
    "(Tensor? grad_output, Tensor? grad_hidden, "
    f"{_OPERANDS.format(output='Tensor output, ')}) -> (Tensor, Tensor)",
    _backward_fake,
)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        gates: torch.Tensor,
        hidden: torch.Tensor,
        kind: str,
        batch_sizes: list[int],
        reverse: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.layout = (kind, batch_sizes, reverse)
        output, last = _forward(gates, hidden, *ctx.layout)
        ctx.save_for_backward(gates, hidden, output)
        ctx.set_materialize_grads(False)
        return output, last

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        gates, hidden, output = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():
            kind, batch_sizes, reverse = ctx.layout
            scan = partial(composed.scan, kind=kind, batch_sizes=batch_sizes, reverse=reverse)
            gradients = dispatcher.differentiable_gradients(
                scan, (gates, hidden), grad_outputs, wanted
            )
        else:
            outer = [None if g is None else g.contiguous() for g in grad_outputs]
            gradients = _backward(*outer, gates, hidden, output, *ctx.layout)
        of_gates, of_hidden = (
            g if needed else None for g, needed in zip(gradients, wanted, strict=True)
        )
        return of_gates, of_hidden, None, None, None


def layer(
    kind: str,
    batch_sizes: list[int],
    rows: torch.Tensor,
    reverse: bool,
    states: list[torch.Tensor],
    weights: LayerWeights,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """One layer in one direction on packed rows."""
    gates = linear(rows, weights.weight_ih, weights.bias_ih, "identity")
    hidden = states[0]
    if not dispatcher.is_served(gates):
        output, last = composed.scan(
            gates, hidden, kind=kind, batch_sizes=batch_sizes, reverse=reverse
        )
        return output, [last]
    try:
        run = _Scan.apply if dispatcher.needs_gradient(gates, hidden) else _forward
        output, last = run(gates, hidden, kind, batch_sizes, reverse)
    except (RuntimeError, AttributeError) as error:
        raise dispatcher.as_raised(error, state=hidden) from None
    return output, [last]
