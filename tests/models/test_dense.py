"""Dense layers that PyTorch's operators may compute."""

from __future__ import annotations

import math

import pytest
import torch

from fusewire.models import dense


@pytest.mark.parametrize("activation", [None, "relu"])
def test_dense_layers_are_the_same_whoever_computes_them(
    activation: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = dense.Dense(7, 5, dtype=torch.float64, activation=activation)
    samples = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)

    def results() -> list[torch.Tensor]:
        output = layer(samples)
        (slope,) = torch.autograd.grad(output.square().sum(), samples, create_graph=True)
        return [output, slope, *torch.autograd.grad(slope.square().sum(), [*layer.parameters()])]

    found = []
    for ours in (False, True):
        monkeypatch.setattr(dense, "_MANY_ROWS", 0 if ours else math.inf)
        found.append(results())
    assert all(result.any() for result in found[0])
    for theirs, our in zip(*found, strict=True):
        torch.testing.assert_close(our, theirs)
