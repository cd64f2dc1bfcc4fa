"""PyTorch's fused operators with further derivatives, on the CPU, where the way is the same."""

import pytest
import torch
from torch.nn import functional

import fusewire as fw
from fusewire.ops import twice


def fused(query, key, value):
    """An operator with one derivative, and an output that does not depend on `value`."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, query, key, value):
            with torch.enable_grad():
                ctx.sources = [x.detach().requires_grad_() for x in (query, key, value)]
                ctx.output = functional.scaled_dot_product_attention(*ctx.sources)
            return ctx.output.detach()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad_output):
            return torch.autograd.grad(ctx.output, ctx.sources, grad_output, retain_graph=True)

    return Once.apply(query, key, value), (query @ key.mT).sum(-1)


def composed(query, key, value):
    scores = query @ key.mT
    return (scores * query.shape[-1] ** -0.5).softmax(-1) @ value, scores.sum(-1)


def run(*operands):
    return tuple(twice.differentiable(fused, composed, operands))


def leaves(*wanted):
    generator = torch.Generator().manual_seed(0)
    numbers = [torch.randn(1, 2, 5, 4, generator=generator, dtype=torch.float64) for _ in wanted]
    return [x.requires_grad_(needs) for x, needs in zip(numbers, wanted, strict=True)]


@pytest.mark.parametrize("wanted", [(True, True, True), (False, False, True), (True, False, False)])
def test_both_derivatives(wanted):
    operands = leaves(*wanted)
    assert torch.autograd.gradcheck(run, operands)
    assert torch.autograd.gradgradcheck(run, operands)


def test_an_output_that_nobody_asks_about():
    operands = leaves(True, True, True)
    for index in (0, 1):
        found = torch.autograd.grad(run(*operands)[index].sum(), operands, allow_unused=True)
        truth = torch.autograd.grad(composed(*operands)[index].sum(), operands, allow_unused=True)
        for gradient, expected in zip(found, truth, strict=True):
            assert (gradient is None) == (expected is None)
            if expected is not None:
                torch.testing.assert_close(gradient, expected)


def test_a_graph_that_is_kept_gives_its_gradient_again():
    operands = leaves(True, True, True)
    total = run(*operands)[0].sum()
    first = torch.autograd.grad(total, operands[0], retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(total, operands[0])[0])


def test_logarithms_without_a_gradient_do_not_stop_the_second_derivative():
    query, key, value = leaves(False, False, True)

    def attention(value):
        return fw.scaled_dot_product_attention(query, key, value, softcap=2.0, return_lse=True)

    assert torch.autograd.gradgradcheck(lambda value: attention(value)[0], [value])
    output, lse = attention(value)
    (gradient,) = torch.autograd.grad(output.pow(2).sum() + lse.sum(), value, create_graph=True)
    assert torch.autograd.grad(gradient.sum(), value)[0].shape == value.shape
