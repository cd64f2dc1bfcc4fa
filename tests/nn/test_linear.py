"""`fw.nn.Linear` beside `torch.nn.Linear`."""

import copy
import pickle

import pytest
import torch

import fusewire as fw


def test_it_is_torchs_layer():
    torch.manual_seed(0)
    theirs = torch.nn.Linear(6, 4)
    ours = fw.nn.Linear(6, 4)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 5, 6)
    torch.testing.assert_close(ours(x), theirs(x))
    assert isinstance(ours, torch.nn.Linear)


def test_it_is_copied_and_pickled_with_its_activation():
    layer = fw.nn.Linear(6, 4, bias=False, dtype=torch.float64, activation="silu")
    x = torch.randn(2, 6, dtype=torch.float64)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))
    assert "activation='silu'" in repr(layer)
    assert list(layer.state_dict()) == ["weight"]


def test_an_unknown_activation_is_refused_at_once():
    with pytest.raises(ValueError, match=r"activation must be 'gelu'.* but is 'foo'"):
        fw.nn.Linear(6, 4, activation="foo")


def test_it_learns():
    torch.manual_seed(0)
    layer = fw.nn.Linear(3, 1)
    x = torch.randn(64, 3)
    target = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (layer(x) - target).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(layer.bias, torch.tensor([3.0]), atol=1e-2, rtol=0)
