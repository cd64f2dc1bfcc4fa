"""Recurrent layers under `torch.jit.trace`, by PyTorch's own operators.

What a trace records has the sizes of its example wherever Python saw them as numbers. PyTorch's
layers are one operator each, which serves every length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from fusewire.ops.rnn.composed import TORCHS_LAYERS
from fusewire.ops.rnn.options import Options


def run(
    options: Options, input: Any, states: Sequence[torch.Tensor] | None, weights: list[list[Any]]
) -> tuple[Any, list[torch.Tensor]]:
    """The output, laid out like `input`, and the final states.

    Args:
        options: Only what `torch.nn` has.
        input: As `torch.nn.LSTM` takes it.
        states: Initial ones, ``(layers * directions, batch, size)``, zeros if None.
        weights: The parameters of each layer and direction, as in `torch.nn.RNNBase`.
    """
    flat = [weight for entry in weights for weight in entry]
    layers = len(weights) // options.directions
    biased = len(weights[0]) > 3
    shape = (biased, layers, options.dropout, options.training, options.bidirectional)
    layer = TORCHS_LAYERS[options.kind]
    if isinstance(input, PackedSequence):
        rows, batch_sizes, sorted_indices, unsorted_indices = input
        initial = _initial(options, rows, batch_sizes[0], states, weights)
        if states is not None and sorted_indices is not None:
            initial = [state.index_select(1, sorted_indices) for state in initial]
        output, *finals = layer(rows, batch_sizes, _one(options, initial), flat, *shape)
        if unsorted_indices is not None:
            finals = [final.index_select(1, unsorted_indices) for final in finals]
        return PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices), finals
    batched = input.dim() == 3
    batch_first = options.batch_first and batched
    sequences = input if batched else input.unsqueeze(1)
    if not batched:
        states = None if states is None else [state.unsqueeze(1) for state in states]
    batch = sequences.shape[0 if batch_first else 1]
    initial = _initial(options, sequences, batch, states, weights)
    output, *finals = layer(sequences, _one(options, initial), flat, *shape, batch_first)
    if not batched:
        return output.squeeze(1), [final.squeeze(1) for final in finals]
    return output, finals


def _initial(
    options: Options,
    input: torch.Tensor,
    batch: Any,
    states: Sequence[torch.Tensor] | None,
    weights: list[list[Any]],
) -> list[torch.Tensor]:
    if states is not None:
        return list(states)
    recurrent = weights[0][1]
    sizes = [recurrent.shape[1]]
    if options.kind == "lstm":
        sizes.append(recurrent.shape[0] // 4)
    return [input.new_zeros(len(weights), batch, size) for size in sizes]


def _one(options: Options, states: list[torch.Tensor]) -> Any:
    """The states as PyTorch's layers take them."""
    return states if options.kind == "lstm" else states[0]
