"""The closed form of gradients through leaky layers is what automatic differentiation finds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fusewire.models import dense
from fusewire.models.gan import (
    ConvolutionalConfig,
    Discriminator,
    Draws,
    Judge,
    MlpConfig,
    slopes_of,
)

SHAPE = (3, 4, 5)
ROWS = 6
DRAWS = Draws(0, 1, ROWS)
SLICES = [slice(0), slice(None), slice(0, 3), slice(3, 6), slice(2, 5)]


def discriminator(
    sizes: tuple[int, ...], conditioning: str, head: str = "sigmoid", spectral: bool = False
) -> Discriminator:
    torch.manual_seed(0)
    config = MlpConfig(hidden_sizes=sizes, head=head, spectral=spectral)
    classes = 0 if conditioning == "none" else 3
    kind = "concatenation" if conditioning == "none" else conditioning
    # In evaluation spectral norm does not move the vectors that it remembers.
    return Discriminator(config, SHAPE, classes, kind).double().eval()


def objective(logits: Tensor, slopes: Tensor) -> Tensor:
    """What depends on each of the numbers in another way."""
    weights = torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype)
    patterns = torch.linspace(-2, 1, slopes.numel(), dtype=slopes.dtype).view(slopes.shape)
    return (logits.tanh() * weights).sum() + (slopes.square() * patterns + slopes.sin()).sum()


@pytest.mark.parametrize("sloping", SLICES)
@pytest.mark.parametrize("conditioning", ["none", "concatenation", "projection"])
@pytest.mark.parametrize(
    ("sizes", "head"), [((7,), "sigmoid"), ((7, 9), "tanh"), ((8, 5, 6), "sigmoid")]
)
def test_all_gradients_are_those_of_automatic_differentiation(
    sizes: tuple[int, ...], head: str, conditioning: str, sloping: slice
) -> None:
    network = discriminator(sizes, conditioning, head)
    samples = torch.rand(ROWS, *SHAPE, dtype=torch.float64, requires_grad=True)
    labels = None if conditioning == "none" else torch.tensor([0, 2, 1, 1, 0, 2])
    wanted = [samples, *network.parameters()]

    plain = network(samples, labels)
    expected = plain, slopes_of(plain, samples)[sloping]
    found = Judge(network)(samples, labels, DRAWS, sloping)
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(objective(*found), wanted)
    torch.testing.assert_close(gradients, torch.autograd.grad(objective(*expected), wanted))


def test_products_of_ours_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network = discriminator((7, 9), "projection")
    samples, labels = torch.rand(ROWS, *SHAPE).double(), torch.tensor([0, 2, 1, 1, 0, 2])
    found = []
    for ours in (False, True):
        monkeypatch.setattr(dense, "_MANY_ROWS", 0 if ours else math.inf)
        given = Judge(network)(samples, labels, DRAWS, slice(1, 4))
        found.append([*given, *torch.autograd.grad(objective(*given), [*network.parameters()])])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("of", [0, 1])
def test_either_result_has_a_gradient_by_itself(of: int) -> None:
    network = discriminator((7, 9), "none", spectral=True)
    samples = torch.rand(ROWS, *SHAPE, dtype=torch.float64)
    wanted = [layer for name, layer in network.named_parameters() if "weight" in name]

    found = Judge(network)(samples, None, DRAWS, slice(None))[of]
    plain = network(samples.requires_grad_())
    expected = (plain, slopes_of(plain, samples))[of]
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), wanted),
        torch.autograd.grad(expected.square().sum(), wanted),
    )


def test_gradients_of_the_closed_form_are_not_differentiated_again() -> None:
    network = discriminator((7,), "none")
    logits, _ = Judge(network)(torch.rand(ROWS, *SHAPE).double(), None, DRAWS, slice(None))
    weight = network.score.weight
    (first,) = torch.autograd.grad(logits.square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_where_there_is_no_closed_form() -> None:
    convolutions = Discriminator(ConvolutionalConfig(width=4), (1, 8, 8))
    dense = discriminator((7,), "none")
    assert Judge(dense).has_closed_form
    assert not Judge(dense, ["brightness"]).has_closed_form
    assert not Judge(convolutions).has_closed_form
    with pytest.raises(TypeError, match="closed form"):
        convolutions.with_slopes(torch.rand(2, 1, 8, 8), None, slice(None))
    samples = torch.rand(4, 1, 8, 8)
    logits, slopes = Judge(convolutions)(samples, None, DRAWS, slice(1, 3))
    torch.testing.assert_close(logits, convolutions(samples))
    torch.testing.assert_close(slopes, slopes_of(convolutions(samples), samples)[1:3])
