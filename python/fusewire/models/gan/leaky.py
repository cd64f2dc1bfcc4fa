r"""Dense layers with leaky ReLU, and the gradient of what they say in closed form.

A logit is :math:`D = d \cdot h_L`, with :math:`h_0 = x`, :math:`h_l = a(W_l h_{l-1} + b_l)` and a
direction d. The activation is linear on either side of 0, so that with its slopes :math:`m_l`

.. math:: u_L = m_L d, \quad u_{l-1} = m_{l-1} W_l^T u_l, \quad \partial D / \partial x = W_1^T u_1

and nothing here depends on x but for the slopes, which are constant almost everywhere. So if a loss
has the derivatives δ by the logits and s by their gradients, and
:math:`v_0 = s, v_l = m_l W_l v_{l-1}`, then

.. math:: \partial / \partial W_l = \sum_{samples} u_l (δ h_{l-1} + v_{l-1})^T

for the loss and all penalties in one product, where automatic differentiation has one for every way
that leads to a weight, and sums of their results.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import leaky_relu_

from fusewire.models.dense import Dense, dense, product

_LEAK = 0.2


class LeakyLayers(nn.Sequential):
    """Dense layers, each with a leaky ReLU behind it.

    Args:
        sizes: of the input and of each layer.

    Example:
        >>> layers = LeakyLayers((3, 5, 4))
        >>> layers(torch.zeros(2, 3)).shape
        torch.Size([2, 4])
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for pair in itertools.pairwise(sizes):
            layers += [Dense(*pair), nn.LeakyReLU(_LEAK)]
        super().__init__(*layers)

    def project(
        self, inputs: Tensor, directions: Tensor, sloping: slice, stretch: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """The last layer's values along directions, and the gradients of some of these numbers.

        Both can be differentiated once by the weights, the inputs and the directions.

        Args:
            inputs: (rows, size).
            directions: (rows, features), or (1, features) for one that all rows have.
            sloping: the rows whose gradients are wanted.
            stretch: what gradients are multiplied with, because inputs were stretched by it.

        Returns:
            (rows,), and the gradient of each at its own input, (sloping rows, size).

        Example:
            >>> layers = LeakyLayers((2, 1))
            >>> layers[0].weight.data = torch.tensor([[3.0, 4.0]])
            >>> _, slopes = layers.project(torch.ones(1, 2), torch.ones(1, 1), slice(None))
            >>> slopes.tolist()
            [[3.0, 4.0]]
        """
        layers = [layer for layer in self if isinstance(layer, Dense)]
        weights = [layer.weight for layer in layers]
        biases = [layer.bias for layer in layers]
        found: tuple[Tensor, Tensor] = _Project.apply(
            inputs, directions, sloping, stretch, *weights, *biases
        )
        return found


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        directions: Tensor,
        sloping: slice,
        stretch: float,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        depth = len(parameters) // 2
        weights, biases = parameters[:depth], parameters[depth:]
        values = [inputs]
        for weight, bias in zip(weights, biases, strict=True):
            values.append(leaky_relu_(dense(values[-1], weight, bias), _LEAK))
        signals: tuple[Tensor, ...] = ()
        slopes = inputs.new_empty((0, inputs.shape[1]))
        if len(inputs[sloping]):
            signals = _signals(directions, weights, values)
            slopes = product(stretch * signals[0][sloping], weights[0])
        ctx.sloping, ctx.stretch, ctx.depth = sloping, stretch, depth
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(directions, *weights, *values, *signals)
        return (values[-1] * directions).sum(1), slopes

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_numbers: Tensor | None, by_slopes: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        directions, *saved = ctx.saved_tensors
        depth, sloping = ctx.depth, ctx.sloping
        weights, values = saved[:depth], saved[depth : 2 * depth + 1]
        signals = saved[2 * depth + 1 :] or _signals(directions, weights, values)
        if by_numbers is None:
            by_numbers = directions.new_zeros(len(values[0]))
        column = by_numbers[:, None]
        of_inputs = column * product(signals[0], weights[0]) if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[1:]):
            return of_inputs, *(None,) * (3 + 2 * depth)
        carried = None if by_slopes is None else ctx.stretch * by_slopes
        of_weights, of_biases = [], []
        for weight, value, after, signal in zip(
            weights, values[:-1], values[1:], signals, strict=True
        ):
            of_weights.append(product(signal.t(), _joined(column * value, sloping, carried)))
            of_biases.append(signal.t() @ by_numbers)
            if carried is not None:
                carried = _behind(product(carried, weight.t()), after[sloping])
        of_directions = _joined(column * values[-1], sloping, carried)
        return (
            of_inputs,
            of_directions.sum_to_size(directions.shape),
            None,
            None,
            *of_weights,
            *of_biases,
        )


def _signals(
    directions: Tensor, weights: Sequence[Tensor], values: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Those of each layer, u, the first layer's first."""
    found = [_behind(directions.expand_as(values[-1]), values[-1])]
    for weight, value in zip(weights[:0:-1], values[-2:0:-1], strict=True):
        found.append(_behind(product(found[-1], weight), value))
    return tuple(found[::-1])


def _behind(signal: Tensor, value: Tensor) -> Tensor:
    """A signal times the slopes of the activation that gave a value, which has its sum's sign."""
    sloped: Tensor = torch.ops.aten.leaky_relu_backward(signal, value, _LEAK, True)
    return sloped


def _joined(rows: Tensor, sloping: slice, carried: Tensor | None) -> Tensor:
    if carried is not None:
        rows[sloping] += carried
    return rows
