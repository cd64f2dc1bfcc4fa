"""Random linear layers."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as functional

import fusewire as fw
from benches.errors.trial import Draw, Named, Trial

ACTIVATIONS = {
    None: lambda product: product,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
MOST_WORK = 1 << 28
"""Multiplications of the product."""


def trial(draw: Draw, dtype: torch.dtype) -> Trial:
    rows, in_features, out_features = (draw.size(2000) for _ in range(3))
    while rows * in_features * out_features > MOST_WORK:
        rows //= 2
    activation = draw.one_of(*ACTIVATIONS)
    has_bias, transposed = draw.happens(0.7), draw.happens(0.25)
    operands = {
        "input": draw.normal(rows, in_features),
        "weight": draw.normal(out_features, in_features) * in_features**-0.5,
    }
    if has_bias:
        operands["bias"] = draw.normal(out_features)
    operands = {name: operand.to(dtype) for name, operand in operands.items()}
    if transposed:
        operands["input"] = operands["input"].T.contiguous().T
    grad_output = draw.normal(rows, out_features).to(dtype)

    def ours(given: Named) -> Named:
        bias = given.get("bias")
        return {"output": fw.linear(given["input"], given["weight"], bias, activation)}

    def theirs(given: Named) -> Named:
        product = functional.linear(given["input"], given["weight"], given.get("bias"))
        return {"output": ACTIVATIONS[activation](product)}

    return Trial(
        told=f"{rows}x{in_features}x{out_features} {activation}"
        + " bias" * has_bias
        + " transposed" * transposed,
        options=(
            f"activation {activation}",
            "few rows" if rows < 16 else "many rows",
            "short sums" if in_features < 64 else "long sums",
            *(["bias"] if has_bias else []),
            *(["transposed"] if transposed else []),
        ),
        operands=operands,
        sources=rows * out_features,
        grad_outputs=lambda _: {"output": grad_output},
        ours=ours,
        theirs=theirs,
    )
