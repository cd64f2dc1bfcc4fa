"""The weights of recurrent layers: their names, and the checks of their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fusewire.ops.rnn.options import GATES, Options, check_options, shown


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


def check_nesting(entries: Any) -> None:
    """Checks that there is an entry for each layer and direction, and weights in each."""
    if not isinstance(entries, (list, tuple, Sequence)):
        raise TypeError(
            "weights must be a sequence with an entry for each layer and direction, but is "
            f"{type(entries).__name__}"
        )
    for index, entry in enumerate(entries):
        if not isinstance(entry, (list, tuple, Sequence)):
            raise TypeError(
                f"entry {index} of weights must be a sequence of weights, but is "
                f"{type(entry).__name__}"
            )


def name_weights(options: Options, entries: Sequence[Sequence[Any]]) -> list[LayerWeights]:
    """The weights by their names, once it is checked how many there are."""
    check_nesting(entries)
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
    _check_present(options, weights[0])
    for index, entry in enumerate(weights):
        _check_first(options, entry, index)
    return weights


def _check_present(options: Options, entry: LayerWeights) -> None:
    """Checks that a cell has a use for the weights that it is given."""
    cell = shown(options.kind)
    if options.is_minimal:
        for name, weight in zip(LayerWeights._fields, entry, strict=True):
            if weight is not None and name not in ("weight_ih", "bias_ih"):
                raise ValueError(f"{cell} has no {name}")
    if options.is_minimal or is_plain(entry):
        return
    if options.kind != "lstm":
        for name in ("weight_hr", "peephole", "norm_cell"):
            if getattr(entry, name) is not None:
                raise ValueError(f"{name} is for an LSTM, not for {cell}")
    if (entry.norm_ih is None) != (entry.norm_hh is None):
        raise ValueError("norm_ih and norm_hh must be given together")
    if entry.bias_cell is not None and entry.norm_cell is None:
        raise ValueError("bias_cell needs norm_cell")


def _check_first(options: Options, entry: LayerWeights, index: int) -> None:
    """Checks the weight that tells the hidden size."""
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
            f"{first} of entry {index} must have shape "
            f"({gates} * hidden_size, {columns[options.is_minimal]}), but has {shape}"
        )


def needs_check(options: Options, weights: Weights) -> bool:
    """Whether layers are composed of operators that would mix types or broadcast shapes."""
    return not (options.is_minimal or (options.is_plain and is_plain(weights[0])))


def check_entries(
    options: Options, weights: Weights, like: Any, states: Sequence[Any] | None = None
) -> None:
    """Checks every weight's shape, and its kind, type and device, which are those of `like`.

    That takes microseconds, which a step of a small layer cannot spare: kernels check what they
    are called with, and this tells of what they refuse which entry it is.
    """
    if isinstance(like, np.ndarray) and like.dtype not in (np.float32, np.float64):
        return  # Kernels tell that no number of this type is computed with.
    for state in states or []:
        _check_kind("the state", state, like)
    size = state_sizes(options, weights)[0]
    first = weights[0].weight_ih if options.is_minimal else weights[0].weight_hh
    rows = first.shape[0]
    hidden_size = rows // GATES[options.kind]
    for index, entry in enumerate(weights):
        lowest = index < options.directions
        below = weights[0].weight_ih.shape[-1] if lowest else options.directions * size
        expected = {
            "weight_ih": (rows, below),
            "weight_hh": (rows, size),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
            "weight_hr": (size, hidden_size),
            "peephole": (3, hidden_size),
            "norm_ih": (rows,),
            "norm_hh": (rows,),
            "norm_cell": (hidden_size,),
            "bias_cell": (hidden_size,),
        }
        if len(entry.weight_ih.shape) != 2:
            raise ValueError(
                f"weight_ih of entry {index} must have 2 dimensions, but has shape "
                f"{tuple(entry.weight_ih.shape)}"
            )
        for name, weight in zip(LayerWeights._fields, entry, strict=True):
            if weight is None:
                continue
            _check_kind(f"{name} of entry {index}", weight, like)
            if tuple(weight.shape) != expected[name]:
                raise ValueError(
                    f"{name} of entry {index} must have shape {expected[name]}, but has "
                    f"{tuple(weight.shape)}"
                )


def _check_kind(name: str, operand: Any, like: Any) -> None:
    of_arrays = isinstance(like, np.ndarray)
    if not hasattr(operand, "shape") or isinstance(operand, np.ndarray) != of_arrays:
        kind = "a NumPy array" if of_arrays else "a PyTorch tensor"
        raise TypeError(f"{name} must be {kind} like the input, but is {type(operand).__name__}")
    if operand.dtype != like.dtype:
        wanted, given = (str(one.dtype).removeprefix("torch.") for one in (like, operand))
        raise TypeError(f"{name} must be {wanted} like the input, but is {given}")
    if not of_arrays and operand.device != like.device:
        raise ValueError(
            f"{name} must be on {like.device} like the input, but is on {operand.device}"
        )


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
