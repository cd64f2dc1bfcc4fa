"""Dense layers with ReLU between them, as one operator: the generator of the mission.

Of networks this small, a step takes calls as much as products. One call each way for all layers
leaves the products, and lets every activation work in place.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from fusewire.models.dense import Dense, dense, product
from fusewire.ops.dispatcher import differentiable_gradients


class RectifiedLayers(nn.Sequential):
    """Dense layers, each but the last with a ReLU behind it.

    Args:
        sizes: of the input and of each layer.

    Example:
        >>> layers = RectifiedLayers((3, 5, 4))
        >>> layers(torch.zeros(2, 3)).shape
        torch.Size([2, 4])
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(*(Dense(*pair) for pair in itertools.pairwise(sizes)))

    def forward(self, input: Tensor) -> Tensor:
        """(rows, size of the input) to (rows, size of the last layer)."""
        layers = [layer for layer in self if isinstance(layer, Dense)]
        weights = [layer.weight for layer in layers]
        biases = [layer.bias for layer in layers]
        values: Tensor = _Chain.apply(input, *weights, *biases)
        return values


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *parameters: Tensor) -> Tensor:
        depth = len(parameters) // 2
        weights, biases = parameters[:depth], parameters[depth:]
        values = [inputs]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            values.append(dense(values[-1], weight, bias).relu_())
        ctx.save_for_backward(*weights, *biases, *values)
        return dense(values[-1], weights[-1], biases[-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        depth = len(ctx.saved_tensors) // 3
        wanted = ctx.needs_input_grad
        if torch.is_grad_enabled():  # the gradient shall be differentiated again
            values = ctx.saved_tensors[2 * depth]
            operands = [values, *ctx.saved_tensors[: 2 * depth]]
            return tuple(differentiable_gradients(_composed, operands, [gradient], wanted))
        weights, values = ctx.saved_tensors[:depth], ctx.saved_tensors[2 * depth :]
        of_weights: list[Tensor | None] = [None] * depth
        of_biases: list[Tensor | None] = [None] * depth
        for index in range(depth)[::-1]:
            if wanted[1 + index]:
                of_weights[index] = product(gradient.t(), values[index])
            if wanted[1 + depth + index]:
                of_biases[index] = gradient.sum(0)
            if index:
                behind = product(gradient, weights[index])
                gradient = torch.ops.aten.threshold_backward(behind, values[index], 0)
        of_inputs = product(gradient, weights[0]) if wanted[0] else None
        return of_inputs, *of_weights, *of_biases


def _composed(inputs: Tensor, *parameters: Tensor) -> tuple[Tensor]:
    depth = len(parameters) // 2
    for index in range(depth):
        inputs = linear(inputs, parameters[index], parameters[depth + index])
        inputs = relu(inputs) if index < depth - 1 else inputs
    return (inputs,)
