"""Fused modules that are made what they were, parametrized meanwhile or no longer."""

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize
from torch.utils._pytree import tree_leaves

import fusewire as fw

NORMED = [
    (torch.nn.LSTM, (6, 8), "weight_hh_l0"),
    (torch.nn.GRUCell, (6, 8), "weight_hh"),
    (torch.nn.Linear, (6, 8), "weight"),
]


@pytest.mark.parametrize(("kind", "sizes", "name"), NORMED)
def test_a_parametrization_of_a_fused_module_survives_its_undoing(kind, sizes, name):
    module, x = kind(*sizes), torch.randn(5, 6)
    fw.fuse(module, linear=True)
    parametrizations.weight_norm(module, name)
    expected = tree_leaves(module(x))
    report = fw.fuse(module, linear=True, undo=True)
    assert report.changed == {"": f"{kind.__name__} as before"}
    assert isinstance(module, kind)
    assert parametrize.is_parametrized(module, name)
    torch.testing.assert_close(tree_leaves(module(x)), expected, rtol=1e-4, atol=2e-6)
    parametrize.remove_parametrizations(module, name)
    assert type(module) is kind
    torch.testing.assert_close(tree_leaves(module(x)), expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(("kind", "sizes", "name"), NORMED)
def test_a_parametrization_that_a_fused_module_lost_stays_away(kind, sizes, name):
    module, x = kind(*sizes), torch.randn(5, 6)
    parametrizations.weight_norm(module, name)
    expected = tree_leaves(module(x))
    fw.fuse(module, linear=True)
    parametrize.remove_parametrizations(module, name)
    report = fw.fuse(module, linear=True, undo=True)
    assert report.changed == {"": f"{kind.__name__} as before"}
    assert type(module) is kind
    torch.testing.assert_close(tree_leaves(module(x)), expected, rtol=1e-4, atol=2e-6)
