"""Low-rank adaptation: a frozen linear layer with a small correction that learns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fusewire.errors import InputError
from fusewire.ops.linear import linear


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


def add_lora(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = ("in_proj", "out_proj", "query_proj", "memory_proj"),
) -> list[nn.Parameter]:
    """Freezes a model and gives its attention projections low-rank corrections, in place.

    Args:
        model: a Transformer of any kind, or what holds one.
        rank: of each correction.
        alpha: strength of the corrections.
        targets: names of the linear layers that get one.

    Returns:
        The parameters that learn.

    Raises:
        InputError: the model has no such layer, or the rank is below 1.

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
    if not found:
        raise InputError(f"the model has no linear layer called {' or '.join(targets)}")
    model.requires_grad_(False)
    learning: list[nn.Parameter] = []
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
    model.requires_grad_(True)


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                yield parent, name, child
