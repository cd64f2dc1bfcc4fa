"""Recurrent layers composed of PyTorch's own operators.

Whole stacks run where our kernels do not (other devices, half precision, function transforms); a
single layer is what a gradient is made of that shall be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import _VF
from torch.nn.functional import linear

from fusewire.ops.rnn.sequences import Options, Weights

_States = tuple[torch.Tensor, torch.Tensor]
_Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], _States]
"""From the input's product, the hidden state's product and the last states to the next states."""


def _lstm(
    projected: torch.Tensor, product: torch.Tensor, _: torch.Tensor, cell: torch.Tensor
) -> _States:
    write, forget, candidate, output = (projected + product).chunk(4, 1)
    cell = forget.sigmoid() * cell + write.sigmoid() * candidate.tanh()
    return output.sigmoid() * cell.tanh(), cell


def _gru(
    projected: torch.Tensor, product: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor
) -> _States:
    size = hidden.shape[1]
    reset, update = (projected + product)[:, : 2 * size].sigmoid().chunk(2, 1)
    candidate = (projected[:, 2 * size :] + reset * product[:, 2 * size :]).tanh()
    return candidate + update * (hidden - candidate), cell


_STEPS: dict[str, _Step] = {
    "tanh": lambda projected, product, _, cell: ((projected + product).tanh(), cell),
    "relu": lambda projected, product, _, cell: ((projected + product).relu(), cell),
    "lstm": _lstm,
    "gru": _gru,
}


def layer(
    input: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor | None,
    bias_hh: torch.Tensor | None,
    *,
    kind: str,
    batch_sizes: list[int],
    reverse: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One layer in one direction on packed rows: output, final hidden and final cell state."""
    batch = hidden.shape[0]
    sizes = batch_sizes or [batch] * (input.shape[0] // batch if batch else 0)
    projected = torch.split(linear(input, weight_ih, bias_ih), sizes) if sizes else ()
    outputs = [hidden[:0]] * len(sizes)
    for time in reversed(range(len(sizes))) if reverse else range(len(sizes)):
        active = sizes[time]
        last, last_cell = hidden[:active], cell[:active]
        product = linear(last, weight_hh, bias_hh)
        outputs[time], next_cell = _STEPS[kind](projected[time], product, last, last_cell)
        hidden = torch.cat([outputs[time], hidden[active:]])
        cell = torch.cat([next_cell, cell[active:]])
    return torch.cat([hidden[:0], *outputs]), hidden, cell


_STACKS: dict[str, Any] = {
    "tanh": _VF.rnn_tanh,
    "relu": _VF.rnn_relu,
    "lstm": _VF.lstm,
    "gru": _VF.gru,
}


def stack(
    options: Options,
    rows: torch.Tensor,
    batch_sizes: list[int],
    states: list[torch.Tensor],
    weights: Weights,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """All layers on packed rows, by PyTorch's own layers."""
    flat = [weight for entry in weights for weight in entry if weight is not None]
    initial = states if options.kind == "lstm" else states[0]
    layers = len(weights) // options.directions
    biased = weights[0].bias_ih is not None
    shape = (biased, layers, options.dropout, options.training, options.bidirectional)
    if batch_sizes:
        # PyTorch's packed layers take no sequence without a step.
        active = batch_sizes[0]
        initial = (
            [s[:, :active] for s in states] if options.kind == "lstm" else states[0][:, :active]
        )
        sizes = torch.tensor(batch_sizes)
        output, *finals = _STACKS[options.kind](rows, sizes, initial, flat, *shape)
        return output, [
            torch.cat([final, state[:, active:]], 1)
            for final, state in zip(finals, states, strict=True)
        ]
    batch = states[0].shape[1]
    width = options.directions * states[0].shape[2]
    if rows.shape[0] == 0:
        return rows.new_zeros(0, width), states
    times = rows.reshape(-1, batch, rows.shape[1])
    output, *finals = _STACKS[options.kind](times, initial, flat, *shape, False)
    return output.reshape(-1, width), finals
