"""The operators' outputs and gradients are equal to the last bit at any number of threads."""

from collections.abc import Callable

import pytest
import torch

import fusewire as fw


def attention() -> torch.Tensor:
    shape = (2, 4, 200, 40)
    query, key, value = (torch.randn(shape, requires_grad=True) for _ in range(3))
    return fw.scaled_dot_product_attention(query, key, value, is_causal=True)


def linear() -> torch.Tensor:
    return fw.nn.Linear(500, 300)(torch.randn(400, 500, requires_grad=True))


def lstm() -> torch.Tensor:
    return fw.nn.LSTM(60, 70, num_layers=2, bidirectional=True)(torch.randn(20, 40, 60))[0]


def gru() -> torch.Tensor:
    return fw.nn.GRU(60, 70)(torch.randn(20, 40, 60))[0]


def rnn() -> torch.Tensor:
    return fw.nn.RNN(60, 70)(torch.randn(20, 40, 60))[0]


def leaves(output: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that an output was computed from, in the order of the graph."""
    found, nodes = [], [output.grad_fn]
    for node in nodes:
        if hasattr(node, "variable"):
            found.append(node.variable)
        nodes += [child for child, _ in node.next_functions if child and child not in nodes]
    return found


@pytest.mark.parametrize("compute", [attention, linear, lstm, gru, rnn])
def test_threads_change_no_bit(compute: Callable[[], torch.Tensor]) -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            output = compute()
            gradients = torch.autograd.grad(output.square().sum(), leaves(output))
            assert len(gradients) > 1
            results.append([output, *gradients])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))
