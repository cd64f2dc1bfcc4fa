"""Masks of another type than the operands: added in float32, with finite numbers kept finite."""

import numpy as np
import pytest
import torch
from ml_dtypes import bfloat16
from torch.nn import functional

import fusewire as fw
from fusewire.ops.attention import scaled_dot_product_attention_backward

LOWEST = torch.finfo(torch.float32).min
HALVES = [torch.bfloat16, torch.float16]


def case(dtype, mask_dtype, fill):
    """Query, key, value, a mask whose first row is all `fill`, and the output's gradient.

    Not that of the first row: a logarithm does not hold the number of keys beside a large maximum.
    """
    generator = torch.Generator().manual_seed(0)
    operands = [
        torch.randn(1, 2, length, 16, generator=generator).to(dtype) for length in (40, 70, 70)
    ]
    mask = 4 * torch.randn(40, 70, generator=generator, dtype=torch.float64)
    mask[:, 50:] = fill
    mask[0] = fill
    upstream = torch.randn(1, 2, 40, 16, generator=generator).to(dtype)
    upstream[:, :, 0] = 0
    return [*operands, mask.to(mask_dtype)], upstream


def on_tensors(operands, upstream, attention=fw.scaled_dot_product_attention):
    leaves = [operand.detach().requires_grad_() for operand in operands]
    output = attention(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, upstream)]


def as_array(tensor):
    if tensor.dtype == torch.bfloat16:
        return tensor.float().numpy().astype(bfloat16)
    return tensor.numpy()


def as_tensor(array):
    if array.dtype == bfloat16:
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    return torch.from_numpy(array)


def on_arrays(operands, upstream):
    arrays = [as_array(operand) for operand in operands]
    output, lse = fw.scaled_dot_product_attention(*arrays, return_lse=True)
    gradients = scaled_dot_product_attention_backward(
        as_array(upstream), *arrays[:3], output, lse, arrays[3],
        of=["query", "key", "value", "attn_mask"],
    )  # fmt: skip
    return [as_tensor(result) for result in (output, *gradients)]


@pytest.mark.parametrize("door", [on_tensors, on_arrays])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("fill", [LOWEST, -1e5, 1000.3])
def test_a_float32_mask_beside_half_precision(door, dtype, fill):
    operands, upstream = case(dtype, torch.float32, fill)
    plain = functional.scaled_dot_product_attention
    exact = [operand.double() for operand in operands]
    truth = on_tensors(exact, upstream.double(), plain)
    theirs = plain(*operands)
    found = door(operands, upstream)
    # What is left of the errors is the rounding of results, and of the output that the gradients
    # are computed from.
    unit = torch.finfo(dtype).eps / 2
    assert (found[0] - truth[0]).norm() <= max(
        (theirs - truth[0]).norm(), 1.01 * unit * truth[0].norm()
    )
    for operand, gradient, true in zip(operands, found[1:], truth[1:], strict=True):
        assert gradient.dtype == operand.dtype
        assert (gradient - true).norm() <= 4 * unit * true.norm()
    # A row that is hidden alike everywhere is a mean, as long as what hides it is a number.
    mean = exact[2].mean(2)
    if fill == LOWEST:
        assert (found[0][:, :, 0] - mean).norm() <= 1.01 * unit * mean.norm()


@pytest.mark.parametrize("door", [on_tensors, on_arrays])
def test_a_bfloat16_mask_beside_float16(door):
    operands, upstream = case(torch.float16, torch.bfloat16, -3e38)
    output, *gradients = door(operands, upstream)
    exact = [operand.double() for operand in operands]
    truth = on_tensors(exact, upstream.double(), functional.scaled_dot_product_attention)
    torch.testing.assert_close(output.double(), truth[0], rtol=1e-3, atol=1e-3)
    assert [x.dtype for x in gradients] == [torch.float16] * 3 + [torch.bfloat16]


@pytest.mark.parametrize("door", [on_tensors, on_arrays])
def test_a_float64_mask_beside_float32(door):
    operands, upstream = case(torch.float32, torch.float64, torch.finfo(torch.float64).min)
    operands[3][1:, 60:] = -torch.inf
    exact = [operand.double() for operand in operands]
    truth = on_tensors(exact, upstream.double(), functional.scaled_dot_product_attention)
    for found, true in zip(door(operands, upstream), truth, strict=True):
        torch.testing.assert_close(found.double(), true, rtol=1e-4, atol=1e-5)
    hidden = [*operands[:3], torch.full((40, 70), -torch.inf, dtype=torch.float64)]
    assert not any(result.any() for result in door(hidden, upstream))


@pytest.mark.parametrize("dtype", HALVES)
def test_packed_and_under_transforms_it_is_the_same(dtype):
    (query, key, value, mask), _ = case(dtype, torch.float32, LOWEST)
    packed = [operand[0].transpose(0, 1) for operand in (query, key, value)]
    ends = torch.tensor([0, 40]), torch.tensor([0, 70])
    output = fw.varlen_attention(*packed, *ends, mask)
    expected = fw.scaled_dot_product_attention(query, key, value, mask)
    torch.testing.assert_close(output.transpose(0, 1)[None], expected)
    assert output.dtype == dtype

    def loss(mask):
        return fw.scaled_dot_product_attention(query, key, value, mask).float().square().sum()

    leaf = mask.clone().requires_grad_()
    found, expected = torch.func.grad(loss)(mask), torch.autograd.grad(loss(leaf), leaf)[0]
    torch.testing.assert_close(found[1:], expected[1:], rtol=0.05, atol=1e-4)


def test_arrays_of_two_types_are_refused_beside_such_a_mask():
    x, mask = np.ones((1, 2, 4, 8), np.float16), np.zeros((4, 4), np.float32)
    with pytest.raises(TypeError, match="value must be float16 like query, but is float32"):
        fw.scaled_dot_product_attention(x, x, x.astype(np.float32), mask)


def test_autocast_rounds_masks_as_that_of_pytorch_does():
    operands, _ = case(torch.float32, torch.float32, -1e5)
    with torch.autocast("cpu", torch.bfloat16):
        output = fw.scaled_dot_product_attention(*operands)
        theirs = functional.scaled_dot_product_attention(*operands)
    rounded = [operand.bfloat16() for operand in operands]
    assert torch.equal(output, fw.scaled_dot_product_attention(*rounded))
    torch.testing.assert_close(output, theirs, rtol=0.02, atol=0.02)
