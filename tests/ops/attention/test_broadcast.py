"""Attention whose operands differ in what lies before their heads."""

import numpy as np
import pytest
import torch

import fusewire as fw
from fusewire.ops.attention import scaled_dot_product_attention_backward


@pytest.mark.parametrize("lead", [((), (3,), (3,)), ((2, 1), (3,), (1, 3)), ((1,), (4,), ())])
def test_it_is_broadcast(lead):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    whole = torch.broadcast_shapes(*lead)
    upstream = draw(*whole, 2, 3, 4)
    sources = [
        draw(*each, 2, length, 4).requires_grad_()
        for each, length in zip(lead, (3, 5, 5), strict=True)
    ]

    def outcome(*operands):
        output = fw.scaled_dot_product_attention(*operands)
        return [output, *torch.autograd.grad(output, sources, upstream)]

    expected = outcome(*(x.expand(*whole, *x.shape[-3:]) for x in sources))
    actual = outcome(*sources)
    assert actual[0].shape == upstream.shape
    torch.testing.assert_close(actual, expected)
    arrays = [x.detach().numpy() for x in sources]
    output, lse = fw.scaled_dot_product_attention(*arrays, return_lse=True)
    assert lse.shape == (*whole, 2, 3)
    found = scaled_dot_product_attention_backward(upstream.numpy(), *arrays, output, lse)
    for array, tensor in zip([output, *found], expected, strict=True):
        np.testing.assert_allclose(array, tensor.detach().numpy(), atol=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"softcap": 2.0}])
def test_a_trace_takes_other_sizes(options):
    def attention(query, key, value):
        return fw.scaled_dot_product_attention(query, key, value, **options)

    traced = torch.jit.trace(attention, (torch.randn(2, 2, 3, 5, 8),) * 3)
    others = torch.randn(3, 3, 4, 3, 7, 8).unbind()
    torch.testing.assert_close(traced(*others), attention(*others), rtol=1e-4, atol=1e-5)
