"""Recurrent layers composed of PyTorch's own operators.

Whole stacks run where our kernels do not (other devices, half precision, function transforms); a
single layer is what a gradient is made of that shall be differentiated again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import _VF
from torch.nn import functional
from torch.nn.functional import linear

from fusewire.ops.rnn.options import EPSILON, GATES, Options, Variant
from fusewire.ops.rnn.weights import LayerWeights, Weights

_States = tuple[torch.Tensor, torch.Tensor]


def layer(
    input: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    weights: LayerWeights,
    variant: Variant,
    batch_sizes: list[int],
    reverse: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One layer in one direction on packed rows: output, final hidden and final cell state."""
    groups = variant.norm_groups(weights.weight_ih.shape[0] // variant.gates)
    sums = _normalised(linear(input, weights.weight_ih), groups, weights.norm_ih, weights.bias_ih)
    zoneout = [variant.zoneout_hidden, variant.zoneout_cell]
    drawn = [mask for mask in zoneout if isinstance(mask, torch.Tensor)]

    def step(rows: list[torch.Tensor], last: list[torch.Tensor]) -> list[torch.Tensor]:
        sums, *masks = rows
        operand = last[0]
        if variant.recurrent is not None:
            operand = operand * variant.recurrent[: operand.shape[0]]
        following = list(_step(variant, weights, sums, operand, last[0], last[1]))
        if weights.weight_hr is not None:
            following[0] = linear(following[0], weights.weight_hr)
        for index, (old, new, keep) in enumerate(zip(last, following, zoneout, strict=True)):
            if keep is not None:
                share = masks.pop(0) if isinstance(keep, torch.Tensor) else keep
                following[index] = share * old + (1 - share) * new
        return following

    output, (hidden, cell) = _walk(step, [sums, *drawn], [hidden, cell], batch_sizes, reverse)
    return output, hidden, cell


def _step(
    variant: Variant,
    weights: LayerWeights,
    sums: torch.Tensor,
    operand: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
) -> _States:
    """The states after a step, before projection and zoneout; `operand` enters the products."""
    size = sums.shape[1] // variant.gates
    groups = variant.norm_groups(size)
    if variant.kind == "gru" and not variant.reset_after:
        first, second = groups
        product = _product(operand, weights, [first])
        reset, update = (sums[:, first] + product).sigmoid().chunk(2, 1)
        candidate = (sums[:, second] + _product(reset * operand, weights, [second])).tanh()
        return candidate + update * (hidden - candidate), cell
    product = _product(operand, weights, groups)
    if variant.kind == "lstm":
        return _lstm(sums + product, cell, weights)
    if variant.kind == "gru":
        reset, update = (sums + product)[:, : 2 * size].sigmoid().chunk(2, 1)
        candidate = (sums[:, 2 * size :] + reset * product[:, 2 * size :]).tanh()
        return candidate + update * (hidden - candidate), cell
    return (sums + product).tanh() if variant.kind == "tanh" else (sums + product).relu(), cell


def _lstm(sums: torch.Tensor, cell: torch.Tensor, weights: LayerWeights) -> _States:
    write, forget, candidate, expose = sums.chunk(4, 1)
    if weights.peephole is not None:
        write, forget = write + weights.peephole[0] * cell, forget + weights.peephole[1] * cell
    cell = forget.sigmoid() * cell + write.sigmoid() * candidate.tanh()
    if weights.peephole is not None:
        expose = expose + weights.peephole[2] * cell
    groups = [slice(0, cell.shape[1])]
    shown = _normalised(cell, groups, weights.norm_cell, weights.bias_cell)
    return expose.sigmoid() * shown.tanh(), cell


def _product(operand: torch.Tensor, weights: LayerWeights, groups: list[slice]) -> torch.Tensor:
    """The hidden state's product for the gates of some groups, normalised and biased."""
    gates = slice(groups[0].start, groups[-1].stop)
    inner = [slice(group.start - gates.start, group.stop - gates.start) for group in groups]
    gain, bias = (
        None if weight is None else weight[gates] for weight in (weights.norm_hh, weights.bias_hh)
    )
    return _normalised(linear(operand, weights.weight_hh[gates]), inner, gain, bias)


def _normalised(
    product: torch.Tensor,
    groups: list[slice],
    gain: torch.Tensor | None,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Each group of columns by its mean and deviation if there is a gain, and then the bias."""
    if gain is not None:
        parts = [product[:, group] for group in groups]
        units = [functional.layer_norm(part, part.shape[1:], eps=EPSILON) for part in parts]
        product = torch.cat(units, 1) * gain
    return product if bias is None else product + bias


def scan(
    gates: torch.Tensor,
    hidden: torch.Tensor,
    *,
    kind: str,
    batch_sizes: list[int],
    reverse: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """MinGRU or minLSTM in one direction on packed rows of gates' sums: output and final state."""
    retained, added = _coefficients(gates, kind)

    def step(rows: list[torch.Tensor], last: list[torch.Tensor]) -> list[torch.Tensor]:
        retained, added = rows
        return [retained * last[0] + added]

    output, (hidden,) = _walk(step, [retained, added], [hidden], batch_sizes, reverse)
    return output, hidden


def _coefficients(gates: torch.Tensor, kind: str) -> _States:
    """What a minimal cell keeps of its state, and what it adds."""
    *sums, candidate = gates.chunk(GATES[kind], 1)
    if kind.endswith("_positive"):
        candidate = torch.where(candidate < 0, candidate.sigmoid(), candidate + 0.5)
    if kind.startswith("min_gru"):
        update = sums[0].sigmoid()
        return 1 - update, update * candidate
    # f / (f + i) by logarithms, so that no sigmoid becomes 0.
    forget, write = (functional.logsigmoid(gate) for gate in sums)
    return (forget - write).sigmoid(), (write - forget).sigmoid() * candidate


def _walk(
    step: Callable[[list[torch.Tensor], list[torch.Tensor]], list[torch.Tensor]],
    matrices: list[torch.Tensor],
    states: list[torch.Tensor],
    batch_sizes: list[int],
    reverse: bool,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Steps through packed rows: all hidden states, and the last states of each sequence."""
    batch = states[0].shape[0]
    sizes = batch_sizes or [batch] * (matrices[0].shape[0] // batch if batch else 0)
    parts = [torch.split(rows, sizes) if sizes else () for rows in matrices]
    outputs = [states[0][:0]] * len(sizes)
    for time in reversed(range(len(sizes))) if reverse else range(len(sizes)):
        active = sizes[time]
        following = step([part[time] for part in parts], [state[:active] for state in states])
        outputs[time] = following[0]
        states = [
            torch.cat([new, old[active:]]) for new, old in zip(following, states, strict=True)
        ]
    return torch.cat([states[0][:0], *outputs]), states


TORCHS_LAYERS: dict[str, Any] = {
    "tanh": _VF.rnn_tanh,
    "relu": _VF.rnn_relu,
    "lstm": _VF.lstm,
    "gru": _VF.gru,
}
"""PyTorch's layers on padded and, with the batch sizes in the second place, on packed batches."""


def stack(
    options: Options,
    rows: torch.Tensor,
    batch_sizes: list[int],
    states: list[torch.Tensor],
    weights: Weights,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """All layers on packed rows, by PyTorch's own layers."""
    flat = [weight for entry in weights for weight in entry if weight is not None]
    layers = len(weights) // options.directions
    biased = weights[0].bias_ih is not None
    # cuDNN has gradients only of what it was told to train, whether or not anything is dropped.
    dropout = options.dropout if options.training else 0.0
    trained = options.training or torch.is_grad_enabled()
    shape = (biased, layers, dropout, trained, options.bidirectional)
    batch = states[0].shape[1]
    # PyTorch's packed layers take no sequence without a step.
    active = batch_sizes[0] if batch_sizes else batch
    begun = [state[:, :active].contiguous() for state in states]
    initial = begun if options.kind == "lstm" else begun[0]
    width = options.directions * states[0].shape[2]
    if rows.shape[0] == 0:
        return rows.new_zeros(0, width), states
    with warnings.catch_warnings():
        # Weights that no module holds cannot lie side by side.
        warnings.filterwarnings("ignore", message="RNN module weights are not part of single")
        if batch_sizes:
            sizes = torch.tensor(batch_sizes)
            output, *finals = TORCHS_LAYERS[options.kind](rows, sizes, initial, flat, *shape)
        else:
            times = rows.reshape(-1, batch, rows.shape[1])
            output, *finals = TORCHS_LAYERS[options.kind](times, initial, flat, *shape, False)
    return output.reshape(-1, width), [
        torch.cat([final, state[:, active:]], 1)
        for final, state in zip(finals, states, strict=True)
    ]
