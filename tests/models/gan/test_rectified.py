"""Dense layers with ReLU as one operator, against automatic differentiation of each by itself."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from fusewire.models import dense
from fusewire.models.gan import Generator, MlpConfig
from fusewire.models.gan.rectified import RectifiedLayers

ROWS = 9


def layers_and_input(*sizes: int) -> tuple[RectifiedLayers, Tensor]:
    torch.manual_seed(0)
    return RectifiedLayers(sizes).double(), torch.randn(ROWS, sizes[0], dtype=torch.float64)


def one_by_one(layers: RectifiedLayers) -> nn.Sequential:
    plain: list[nn.Module] = []
    for layer in layers:
        plain += [nn.Linear(layer.in_features, layer.out_features).double(), nn.ReLU()]
    sequence = nn.Sequential(*plain[:-1])
    sequence.load_state_dict(dict(zip(sequence.state_dict(), layers.parameters(), strict=True)))
    return sequence


@pytest.mark.parametrize("sizes", [(3, 4), (3, 8, 4), (5, 8, 7, 4)])
def test_all_gradients_are_those_of_automatic_differentiation(sizes: tuple[int, ...]) -> None:
    layers, inputs = layers_and_input(*sizes)
    plain = one_by_one(layers)
    torch.testing.assert_close(layers(inputs), plain(inputs))
    inputs.requires_grad_()
    found, expected = (
        torch.autograd.grad(net(inputs).sin().sum(), [inputs, *net.parameters()])
        for net in (layers, plain)
    )
    torch.testing.assert_close(found, expected)


def test_gradients_can_be_differentiated_again() -> None:
    layers, inputs = layers_and_input(3, 8, 4)
    plain = one_by_one(layers)
    inputs.requires_grad_()

    def again(net: nn.Module) -> tuple[Tensor, ...]:
        (slopes,) = torch.autograd.grad(net(inputs).sin().sum(), inputs, create_graph=True)
        wanted = [inputs, *net.parameters()]
        return torch.autograd.grad(slopes.square().sum(), wanted, materialize_grads=True)

    torch.testing.assert_close(again(layers), again(plain))


def test_only_what_is_wanted_is_found() -> None:
    layers, inputs = layers_and_input(3, 8, 4)
    for count in (1, 2):
        for frozen in itertools.combinations(layers.parameters(), count):
            for parameter in layers.parameters():
                parameter.grad = None
                parameter.requires_grad_(not any(parameter is each for each in frozen))
            layers(inputs).sum().backward()
            for parameter in layers.parameters():
                assert (parameter.grad is None) == any(parameter is each for each in frozen)


def test_products_of_ours_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, inputs = layers_and_input(5, 8, 7, 4)
    found = []
    for ours in (False, True):
        monkeypatch.setattr(dense, "_MANY_ROWS", 0 if ours else math.inf)
        values = layers(inputs)
        gradients = torch.autograd.grad(values.sin().sum(), [*layers.parameters()])
        found.append([values.detach(), *gradients])
    torch.testing.assert_close(*found)


def test_weights_have_the_names_they_had() -> None:
    names = [name for name, _ in Generator(MlpConfig(), (1, 4, 4)).named_parameters()]
    expected = [f"trunk.body.{layer}.{kind}" for layer in range(3) for kind in ("weight", "bias")]
    assert names == expected
