"""The weights of recurrent layers: their names, and the checks of their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fusewire.ops.rnn.options import GATES, Options, check_options


class LayerWeights(NamedTuple):
    """The parameters of one layer in one direction, named as in `torch.nn`; None for none.

    `G` is 1 for Elman's cell, 3 for GRU and 4 for LSTM.
    """

    weight_ih: Any
    """``(G * hidden_size, input_size)``."""
    weight_hh: Any = None
    """``(G * hidden_size, hidden_size)``, with projections ``(G * hidden_size, proj_size)``."""
    bias_ih: Any = None
    """``(G * hidden_size)``."""
    bias_hh: Any = None
    """``(G * hidden_size)``."""
    weight_hr: Any = None
    """The projection of an LSTM's output, ``(proj_size, hidden_size)``."""
    peephole: Any = None
    """What an LSTM's input, forget and output gate see of the cell state, ``(3, hidden_size)``."""
    norm_ih: Any = None
    """The gain of the input's normalised product, ``(G * hidden_size)``; `bias_ih` follows it."""
    norm_hh: Any = None
    """The gain of the hidden state's normalised product, likewise."""
    norm_cell: Any = None
    """The gain of the normalised cell state that an LSTM's output is made of, ``(hidden_size)``."""
    bias_cell: Any = None
    """What is added to it, ``(hidden_size)``."""


Weights = Sequence[LayerWeights]
"""Per layer and direction, a layer's directions next to each other."""


def name_weights(options: Options, entries: Sequence[Sequence[Any]]) -> list[LayerWeights]:
    """The weights by their names, once it is checked how many there are."""
    directions = options.directions
    if not entries or len(entries) % directions:
        raise ValueError(
            f"weights must have {directions} entries for each layer, but has {len(entries)}"
        )
    weights = [_name_entry(options, index, entry) for index, entry in enumerate(entries)]
    present = [[weight is None for weight in entry] for entry in weights]
    for index, given in enumerate(present):
        if given != present[0]:
            raise ValueError(f"entry {index} of weights must have the same weights as entry 0")
    check_options(options)
    for index, entry in enumerate(weights):
        _check_shapes(options, entry, index)
    return weights


def _check_shapes(options: Options, entry: LayerWeights, index: int) -> None:
    """Checks the weights' shapes as far as kernels do not."""
    gates = GATES[options.kind]
    first = "weight_ih" if options.is_minimal else "weight_hh"
    for name in ("weight_ih", first):
        if not hasattr(getattr(entry, name), "shape"):
            kind = type(getattr(entry, name)).__name__
            raise TypeError(f"{name} of entry {index} must be an array or a tensor, but is {kind}")
    shape = tuple(getattr(entry, first).shape)
    columns = {True: "input_size", False: "hidden_size" if entry.weight_hr is None else "proj_size"}
    fits = len(shape) == 2 and shape[0] % gates == 0
    if not options.is_minimal and entry.weight_hr is None:
        fits = fits and shape[0] == gates * shape[1]
    if not fits:
        raise ValueError(
            f"{first} must have shape ({gates} * hidden_size, {columns[options.is_minimal]}), "
            f"but has {shape}"
        )
    if options.is_minimal or (is_plain(entry) and options.reset_after):
        return
    rows, hidden_size = shape[0], shape[0] // gates
    for name, expected in {
        "weight_ih": (rows, tuple(entry.weight_ih.shape)[-1]),
        "bias_ih": (rows,),
        "bias_hh": (rows,),
        "weight_hr": (shape[1], hidden_size),
        "peephole": (3, hidden_size),
        "norm_ih": (rows,),
        "norm_hh": (rows,),
        "norm_cell": (hidden_size,),
        "bias_cell": (hidden_size,),
    }.items():
        weight = getattr(entry, name)
        if weight is not None and tuple(weight.shape) != expected:
            raise ValueError(
                f"{name} of entry {index} must have shape {expected}, but has {tuple(weight.shape)}"
            )
    if options.kind != "lstm":
        for name in ("weight_hr", "peephole", "norm_cell"):
            if getattr(entry, name) is not None:
                raise ValueError(f"{name} is for an LSTM, not for {options.kind}")
    if (entry.norm_ih is None) != (entry.norm_hh is None):
        raise ValueError("norm_ih and norm_hh must be given together")
    if entry.bias_cell is not None and entry.norm_cell is None:
        raise ValueError("bias_cell needs norm_cell")


def _name_entry(options: Options, index: int, entry: Sequence[Any]) -> LayerWeights:
    if isinstance(entry, LayerWeights):
        return entry
    if options.is_minimal:
        if len(entry) not in (1, 2):
            raise ValueError(
                "each entry of weights must be (weight,) or (weight, bias), "
                f"but entry {index} has {len(entry)}"
            )
        weight, bias = entry if len(entry) == 2 else (*entry, None)
        return LayerWeights(weight, bias_ih=bias)
    projected = len(entry) in (3, 5)
    if len(entry) not in (2, 4) and not (projected and options.kind == "lstm"):
        raise ValueError(
            "each entry of weights must be (weight_ih, weight_hh) or "
            "(weight_ih, weight_hh, bias_ih, bias_hh), for an LSTM with projections followed by "
            f"weight_hr, but entry {index} has {len(entry)}"
        )
    if projected:
        return LayerWeights(*entry[:-1])._replace(weight_hr=entry[-1])
    return LayerWeights(*entry)


def state_sizes(options: Options, weights: Weights) -> list[int]:
    """The size of the hidden state, and of the cell state where there is one."""
    hidden_size = weights[0].weight_ih.shape[0] // GATES[options.kind]
    if options.kind != "lstm":
        return [hidden_size]
    return [weights[0].weight_hh.shape[1], hidden_size]


def is_plain(weights: LayerWeights) -> bool:
    """Whether a layer has the weights of `torch.nn` without projections, and no others."""
    paired = (weights.bias_ih is None) == (weights.bias_hh is None)
    return paired and all(weight is None for weight in weights[4:])


def is_torchs(options: Options, weights: Weights) -> bool:
    """Whether `torch.nn` has these layers."""
    return (
        options.is_plain
        and all(weight is None for weight in weights[0][5:])
        and not (
            options.training and options.dropout and (options.locked or options.seed is not None)
        )
    )
