"""Cells beyond the plain ones on arrays, step by step: products by our kernels, the rest by NumPy.

They are LSTMs with projections, peepholes or layer normalisation, GRUs whose reset gate comes
before the product, and all cells with recurrent dropout or zoneout; docs/kernels/recurrent.md
derives them.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusewire import _native
from fusewire.ops.rnn.options import EPSILON, Variant
from fusewire.ops.rnn.weights import LayerWeights

Array = NDArray[Any]


class Outcome(NamedTuple):
    """The gradients of a layer's input rows, initial states and weights."""

    rows: Array
    states: list[Array]
    weights: tuple[Array, ...]


class StepwiseCall:
    """One layer in one direction; remembers what its backward pass needs.

    Args:
        variant: Which cell, and its masks.
        batch_sizes: Sequences at each time.
        reverse: Whether to run from the last step to the first.
        rows: The packed input, ``(total, input_size)``.
        states: The initial hidden and cell state, ``(batch, size)`` each.
        weights: The parameters.
    """

    def __init__(
        self,
        variant: Variant,
        batch_sizes: list[int],
        reverse: bool,
        rows: Array,
        states: list[Array],
        weights: LayerWeights,
    ) -> None:
        self.variant = variant
        self.rows = rows
        self.weights = weights
        self.hidden_size = weights.weight_ih.shape[0] // variant.gates
        self.groups = variant.norm_groups(self.hidden_size)
        ends = np.cumsum(batch_sizes, dtype=np.int64)
        places = [
            slice(int(end) - size, int(end)) for end, size in zip(ends, batch_sizes, strict=True)
        ]
        self.places = places[::-1] if reverse else places
        self.steps: list[SimpleNamespace] = []
        self.input_sums = _sum(
            rows, weights.weight_ih, weights.bias_ih, weights.norm_ih, self.groups
        )
        hidden_size = weights.weight_hh.shape[1]
        self.output = np.empty((len(rows), hidden_size), rows.dtype)
        self.finals = [state.copy() for state in states]
        for place in self.places:
            active = place.stop - place.start
            last = [state[:active].copy() for state in self.finals]
            step = self._forward(place, last)
            self.steps.append(step)
            self.output[place] = step.next[0]
            for state, following in zip(self.finals, step.next, strict=True):
                state[:active] = following

    def _forward(self, place: slice, last: list[Array]) -> SimpleNamespace:
        """One step of the sequences that it has."""
        weights, variant, size = self.weights, self.variant, self.hidden_size
        sums = self.input_sums.value[place]
        mask = variant.rows_of("recurrent", slice(0, len(last[0])))
        operand = last[0] if mask is None else last[0] * mask
        step = SimpleNamespace(place=place, last=last, mask=mask, operand=operand)
        if variant.kind == "gru" and not variant.reset_after:
            step.gate_sums = self._product(operand, slice(0, 2 * size))
            reset, update = np.split(
                _sigmoid(sums[:, : 2 * size] + step.gate_sums.value), 2, axis=1
            )
            step.scaled = reset * operand
            step.candidate_sums = self._product(step.scaled, slice(2 * size, 3 * size))
            candidate = np.tanh(sums[:, 2 * size :] + step.candidate_sums.value)
            step.saved = reset, update, candidate
            following = [candidate + update * (last[0] - candidate)]
        else:
            step.gate_sums = self._product(operand, slice(0, variant.gates * size))
            following = self._cell(step, sums, step.gate_sums.value, last)
        if weights.weight_hr is not None:
            step.unprojected = following[0]
            following[0] = _product(following[0], weights.weight_hr.T)
        step.keep = [variant.rows_of(name, place) for name in ("zoneout_hidden", "zoneout_cell")]
        step.next = [
            new if keep is None else keep * old + (1 - keep) * new
            for new, old, keep in zip(following, last, step.keep[: len(last)], strict=True)
        ]
        return step

    def _cell(
        self, step: SimpleNamespace, sums: Array, product: Array, last: list[Array]
    ) -> list[Array]:
        """The next states where one product serves all gates."""
        match self.variant.kind:
            case "tanh":
                step.saved = np.tanh(sums + product)
                return [step.saved]
            case "relu":
                step.saved = np.maximum(sums + product, 0)
                return [step.saved]
            case "gru":
                size = self.hidden_size
                gates = _sigmoid((sums + product)[:, : 2 * size])
                reset, update = np.split(gates, 2, axis=1)
                inner = product[:, 2 * size :]
                candidate = np.tanh(sums[:, 2 * size :] + reset * inner)
                step.saved = reset, update, candidate, inner
                return [candidate + update * (last[0] - candidate)]
        peephole = self.weights.peephole
        write, forget, candidate, expose = np.split(sums + product, 4, axis=1)
        if peephole is not None:
            write, forget = write + peephole[0] * last[1], forget + peephole[1] * last[1]
        write, forget, candidate = _sigmoid(write), _sigmoid(forget), np.tanh(candidate)
        cell = forget * last[1] + write * candidate
        if peephole is not None:
            expose = expose + peephole[2] * cell
        expose = _sigmoid(expose)
        step.cell_norm = None
        shown = cell
        if self.weights.norm_cell is not None:
            groups = [slice(0, self.hidden_size)]
            step.cell_norm = _Sum(cell, self.weights.bias_cell, self.weights.norm_cell, groups)
            shown = step.cell_norm.value
        shown = np.tanh(shown)
        step.saved = write, forget, candidate, expose, cell, shown
        return [expose * shown, cell]

    def _product(self, operand: Array, gates: slice) -> _Sum:
        """The hidden state's product for some of the gates, normalised and biased."""
        weights = self.weights
        groups = [
            slice(group.start - gates.start, group.stop - gates.start)
            for group in self.groups
            if gates.start <= group.start < gates.stop
        ]
        return _sum(
            operand,
            weights.weight_hh[gates],
            None if weights.bias_hh is None else weights.bias_hh[gates],
            None if weights.norm_hh is None else weights.norm_hh[gates],
            groups,
        )

    def backward(self, grad_output: Array, grad_finals: list[Array]) -> Outcome:
        """The gradients of the operands, given those of the output and the final states."""
        weights, variant = self.weights, self.variant
        count = 2 if variant.kind == "lstm" else 1
        gradients = [g.copy() for g in grad_finals] or [
            np.zeros_like(state) for state in self.finals
        ]
        total = _Totals(self.rows.dtype, weights)
        of_sums = np.empty_like(self.input_sums.value)
        for step in reversed(self.steps):
            active = step.place.stop - step.place.start
            outer = [gradients[0][:active] + grad_output[step.place]]
            outer += [gradient[:active] for gradient in gradients[1:count]]
            kept = [
                0 if keep is None else keep * gradient
                for keep, gradient in zip(step.keep[:count], outer, strict=True)
            ]
            outer = [
                gradient if keep is None else (1 - keep) * gradient
                for keep, gradient in zip(step.keep[:count], outer, strict=True)
            ]
            if weights.weight_hr is not None:
                total.product("weight_hr", outer[0], step.unprojected)
                outer[0] = _product(outer[0], weights.weight_hr)
            of_sums[step.place], inner = self._backward(step, outer, total)
            for gradient, direct, part in zip(gradients, kept, inner, strict=True):
                gradient[:active] = direct + part
        of_rows = self.input_sums.backward(of_sums, total, "bias_ih", "norm_ih")
        total.product("weight_ih", of_rows, self.rows)
        return Outcome(_product(of_rows, weights.weight_ih), gradients, total.found())

    def _backward(
        self, step: SimpleNamespace, outer: list[Array], total: _Totals
    ) -> tuple[Array, list[Array]]:
        """The gradients of a step's sums and of the states before it."""
        size, weight = self.hidden_size, self.weights.weight_hh
        kind = self.variant.kind
        if kind in ("tanh", "relu"):
            slope = 1 - step.saved**2 if kind == "tanh" else step.saved > 0
            sums = of_product = outer[0] * slope
            direct: Any = 0
            others: list[Array] = []
        elif kind == "lstm":
            sums, cell = self._backward_lstm(step, outer, total)
            of_product, direct, others = sums, 0, [cell]
        else:
            reset, update, candidate, *inner = step.saved
            of_candidate = outer[0] * (1 - update) * (1 - candidate**2)
            of_update = outer[0] * (step.last[0] - candidate) * update * (1 - update)
            direct, others = outer[0] * update, []
            if inner:
                of_reset = of_candidate * inner[0] * reset * (1 - reset)
                of_product = np.concatenate([of_reset, of_update, of_candidate * reset], axis=1)
            else:
                part = step.candidate_sums.backward(
                    of_candidate, total, "bias_hh", "norm_hh", slice(2 * size, 3 * size)
                )
                total.product("weight_hh", part, step.scaled, slice(2 * size, 3 * size))
                scaled = _product(part, weight[2 * size :])
                of_reset = scaled * step.operand * reset * (1 - reset)
                of_product = np.concatenate([of_reset, of_update], axis=1)
                direct = direct + (
                    scaled * reset if step.mask is None else scaled * reset * step.mask
                )
            sums = np.concatenate([of_reset, of_update, of_candidate], axis=1)
        gates = slice(0, of_product.shape[1])
        part = step.gate_sums.backward(of_product, total, "bias_hh", "norm_hh", gates)
        total.product("weight_hh", part, step.operand, gates)
        hidden = _product(part, weight[gates])
        if step.mask is not None:
            hidden = hidden * step.mask
        return sums, [direct + hidden, *others]

    def _backward_lstm(
        self, step: SimpleNamespace, outer: list[Array], total: _Totals
    ) -> tuple[Array, Array]:
        """The gradients of the gates' sums and of the cell state before the step."""
        write, forget, candidate, expose, cell, shown = step.saved
        peephole, last = self.weights.peephole, step.last[1]
        of_expose = outer[0] * shown * expose * (1 - expose)
        of_cell = outer[0] * expose * (1 - shown**2)
        if step.cell_norm is not None:
            of_cell = step.cell_norm.backward(of_cell, total, "bias_cell", "norm_cell")
        of_cell = of_cell + outer[1]
        if peephole is not None:
            of_cell = of_cell + of_expose * peephole[2]
        of_write = of_cell * candidate * write * (1 - write)
        of_forget = of_cell * last * forget * (1 - forget)
        of_candidate = of_cell * write * (1 - candidate**2)
        of_last = of_cell * forget
        if peephole is not None:
            of_last = of_last + of_write * peephole[0] + of_forget * peephole[1]
            for row, (gate, state) in enumerate(
                [(of_write, last), (of_forget, last), (of_expose, cell)]
            ):
                total.add("peephole", (gate * state).sum(axis=0), row)
        return np.concatenate([of_write, of_forget, of_candidate, of_expose], axis=1), of_last


class _Sum:
    """Gates' sums: normalised in groups if there is a gain, and biased."""

    def __init__(
        self, product: Array, bias: Array | None, gain: Array | None, groups: list[slice]
    ) -> None:
        self.gain, self.groups = gain, groups
        self.deviations: list[Array] = []
        value = product
        if gain is not None:
            self.unit = np.empty_like(product)
            for group in groups:
                centred = product[:, group] - product[:, group].mean(axis=1, keepdims=True)
                variance = (centred**2).mean(axis=1, keepdims=True)
                self.deviations.append(np.sqrt(variance + product.dtype.type(EPSILON)))
                self.unit[:, group] = centred / self.deviations[-1]
            value = self.unit * gain
        self.value = value if bias is None else value + bias

    def backward(
        self, gradient: Array, total: _Totals, bias: str, norm: str, gates: Any = ...
    ) -> Array:
        """The product's gradient; those of bias and gain are added to the totals."""
        total.add(bias, gradient.sum(axis=0), gates)
        if self.gain is None:
            return gradient
        total.add(norm, (gradient * self.unit).sum(axis=0), gates)
        gradient = gradient * self.gain
        result = np.empty_like(gradient)
        for group, deviation in zip(self.groups, self.deviations, strict=True):
            part, unit = gradient[:, group], self.unit[:, group]
            along = (part * unit).mean(axis=1, keepdims=True)
            result[:, group] = (part - part.mean(axis=1, keepdims=True) - unit * along) / deviation
        return result


class _Totals:
    """The weights' gradients, summed up over steps."""

    def __init__(self, dtype: Any, weights: LayerWeights) -> None:
        self.sums = {
            name: np.zeros(weight.shape, dtype)
            for name, weight in weights._asdict().items()
            if weight is not None
        }

    def add(self, name: str, gradient: Array, place: Any = ...) -> None:
        if name in self.sums:
            self.sums[name][place] += gradient

    def product(self, name: str, gradient: Array, operand: Array, place: Any = ...) -> None:
        self.add(name, _product(gradient.T, operand), place)

    def found(self) -> tuple[Array, ...]:
        return tuple(self.sums.values())


def _product(a: Array, b: Array) -> Array:
    return _native.linear(a, b.T, None, "identity")


def _sum(
    operand: Array, weight: Array, bias: Array | None, gain: Array | None, groups: list[slice]
) -> _Sum:
    return _Sum(_product(operand, weight.T), bias, gain, groups)


def _sigmoid(x: Array) -> Array:
    return 0.5 * np.tanh(0.5 * x) + 0.5
