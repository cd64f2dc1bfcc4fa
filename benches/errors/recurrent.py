"""Random recurrent layers: cells, layers, directions, lengths, states."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import pack_padded_sequence

import fusewire as fw
from benches.errors.trial import Draw, Named, Trial

CELLS: dict[str, tuple[str, dict[str, str]]] = {
    "tanh": ("RNN", {"nonlinearity": "tanh"}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "gru": ("GRU", {}),
    "lstm": ("LSTM", {}),
}
MOST_WORK = 1 << 27
"""Multiplications of one gate."""


def trial(cell: str, draw: Draw, dtype: torch.dtype) -> Trial:
    seq_len, batch = draw.size(200), draw.size(64)
    input_size, hidden_size = draw.size(400), draw.size(400, least=2)
    layers, bidirectional = draw.one_of(1, 1, 2, 3), draw.happens(0.3)
    while seq_len * batch * hidden_size * (input_size + hidden_size) * layers > MOST_WORK:
        seq_len, batch = (seq_len + 1) // 2, (batch + 1) // 2
    has_state, packed = draw.happens(0.5), draw.happens(0.3)
    name, options = CELLS[cell]
    sizes: dict[str, Any] = {
        "input_size": input_size,
        "hidden_size": hidden_size,
        "num_layers": layers,
        "bidirectional": bidirectional,
        "bias": draw.happens(0.8),
    }
    if cell == "lstm" and hidden_size > 2 and draw.happens(0.2):
        sizes["proj_size"] = draw.size(hidden_size - 1)
    lengths = draw.whole(1, seq_len, batch) if packed else None

    # Weights as large as training begins with, so that the cells do not saturate.
    shapes = {
        name: tuple(weight.shape)
        for name, weight in getattr(torch.nn, name)(**sizes, device="meta").named_parameters()
    }
    operands = {"input": draw.normal(seq_len, batch, input_size)}
    operands |= {
        name: draw.normal(*shape) * (3 * hidden_size) ** -0.5 for name, shape in shapes.items()
    }
    states = ["hidden", "cell"] if cell == "lstm" else ["hidden"]
    if has_state:
        for state in states:
            width = sizes.get("proj_size", hidden_size) if state == "hidden" else hidden_size
            operands[f"first {state}"] = draw.normal(layers * (1 + bidirectional), batch, width)
    operands = {name: operand.to(dtype) for name, operand in operands.items()}
    grad_seed = int(draw.whole(0, 1 << 30, 1))

    def grad_outputs(outputs: Named) -> Named:
        again = Draw(grad_seed)
        return {name: again.normal(*output.shape).to(dtype) for name, output in outputs.items()}

    def computed_by(library: Any) -> Any:
        def compute(given: Named) -> Named:
            module = getattr(library, name)(**sizes, **options, dtype=given["input"].dtype)
            rows: Any = given["input"]
            if lengths is not None:
                rows = pack_padded_sequence(rows, lengths, enforce_sorted=False)
            state: Any = tuple(given[f"first {state}"] for state in states) if has_state else None
            if has_state and cell != "lstm":
                (state,) = state
            weights = {name: given[name] for name in shapes}
            output, last = torch.func.functional_call(module, weights, (rows, state))
            last = last if cell == "lstm" else (last,)
            return {
                "output": output if lengths is None else output.data,
                **{f"last {state}": of for state, of in zip(states, last, strict=True)},
            }

        return compute

    return Trial(
        told=f"{cell} {seq_len}x{batch}x{input_size}x{hidden_size}"
        f" {', '.join(f'{key}={size}' for key, size in list(sizes.items())[2:])}"
        + " packed" * packed
        + " states" * has_state,
        options=(
            "layers" if layers > 1 else "one layer",
            "one step" if seq_len == 1 else "few steps" if seq_len < 16 else "many steps",
            "few rows" if batch < 4 else "many rows",
            *(["both directions"] if bidirectional else []),
            *(["packed"] if packed else []),
            *(["projection"] if "proj_size" in sizes else []),
        ),
        operands=operands,
        sources=(1 + bidirectional)
        * hidden_size
        * (seq_len * batch if lengths is None else int(lengths.sum())),
        grad_outputs=grad_outputs,
        ours=computed_by(fw.nn),
        theirs=computed_by(torch.nn),
    )
