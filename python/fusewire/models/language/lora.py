"""Low-rank adaptation: frozen weights with small corrections that learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fusewire.errors import InputError
from fusewire.nn import Recurrent
from fusewire.ops.linear import linear

_TARGETS = ("in_proj", "out_proj", "query_proj", "memory_proj", "weight_ih", "weight_hh")


class LowRank(nn.Module):
    r"""A linear layer whose weight moves by a matrix of low rank only (Hu et al. 2021).

    .. math:: y = W x + b + \frac{\alpha}{r} B A x

    ``W`` and ``b`` are frozen. ``B`` starts as zeros, so that nothing is changed at first.

    Args:
        layer: the linear layer.
        rank: r.
        alpha: strength of the correction.
    """

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.scale = alpha / rank
        self.down = nn.Parameter(layer.weight.new_empty(rank, layer.in_features))
        self.up = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))
        nn.init.normal_(self.down, std=layer.in_features**-0.5)

    def forward(self, input: Tensor) -> Tensor:
        """Applies the layer to ``(..., in_features)``; returns ``(..., out_features)``."""
        output: Tensor = self.layer(input)
        return output + linear(linear(input, self.down), self.up) * self.scale

    def merged(self) -> nn.Linear:
        """The layer with the correction in its weight, of the original kind."""
        with torch.no_grad():
            self.layer.weight += self.scale * self.up @ self.down
        return self.layer


class LowRankWeight(nn.Module):
    r"""A weight of a recurrent layer, that of all its gates, that moves by a matrix of low rank.

    .. math:: W' = W + \frac{\alpha}{r} B A

    A parametrization of PyTorch's: the layer reads :math:`W'` where it had :math:`W`, once for a
    whole sequence. ``B`` starts as zeros, so that nothing is changed at first.

    Args:
        weight: W, (gates, size).
        rank: r.
        alpha: strength of the correction.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        gates, size = weight.shape
        self.scale = alpha / rank
        self.down = nn.Parameter(weight.new_empty(rank, size))
        self.up = nn.Parameter(weight.new_zeros(gates, rank))
        nn.init.normal_(self.down, std=size**-0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """The corrected weight."""
        return torch.addmm(weight, self.up, self.down, alpha=self.scale)


def add_lora(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = _TARGETS,
) -> list[nn.Parameter]:
    """Freezes a model and gives some of its matrices low-rank corrections, in place.

    Args:
        model: a Transformer of any kind, a recurrent model, or what holds one.
        rank: of each correction.
        alpha: strength of the corrections.
        targets: names of the linear layers, and of the recurrent layers' weights, that get one:
            by default attention's projections and the matrices of the gates.

    Returns:
        The parameters that learn.

    Raises:
        InputError: the model has nothing of these names, or the rank is below 1.

    Example:
        >>> from fusewire.models.language import Transformer, TransformerConfig, add_lora
        >>> model = Transformer(TransformerConfig(layers=1, heads=2, embed_dim=16), vocab_size=10)
        >>> learning = add_lora(model, rank=2)
        >>> sum(parameter.numel() for parameter in learning)
        192
    """
    if rank < 1:
        raise InputError(f"rank must be at least 1, got {rank}")
    found = [
        (parent, name, layer) for parent, name, layer in _linear_layers(model) if name in targets
    ]
    gates = [
        (module, name)
        for module in model.modules()
        if isinstance(module, Recurrent)
        for name, _ in module.named_parameters(recurse=False)
        if name.partition("_l")[0] in targets
    ]
    if not found and not gates:
        raise InputError(f"the model has neither layer nor weight called {' or '.join(targets)}")
    model.requires_grad_(False)
    learning: list[nn.Parameter] = []
    for module, name in gates:
        correction = LowRankWeight(getattr(module, name), rank, alpha)
        parametrize.register_parametrization(module, name, correction)
        learning += [correction.down, correction.up]
    for parent, name, layer in found:
        adapted = LowRank(layer, rank, alpha)
        setattr(parent, name, adapted)
        learning += [adapted.down, adapted.up]
    return learning


def merge_lora(model: nn.Module) -> None:
    """Puts all corrections into the weights, in place: the model is again what it was, but moved.

    Its parameters learn again.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LowRank):
                setattr(parent, name, child.merged())
        if isinstance(parent, Recurrent) and parametrize.is_parametrized(parent):
            corrected: Any = parent.parametrizations
            for name in list(corrected):
                parametrize.remove_parametrizations(parent, name)
    model.requires_grad_(True)


def weights_below_lora(model: nn.Module) -> dict[str, Tensor]:
    """The frozen weights by the names that they had before corrections stood around them."""
    return {
        name.replace(".layer.", ".").replace("parametrizations.", "").removesuffix(".original"): w
        for name, w in model.state_dict().items()
    }


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                yield parent, name, child
