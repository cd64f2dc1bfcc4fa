"""PyTorch's own samples of attention, run through our kernels."""

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_map

import fusewire as fw

INFO = next(info for info in op_db if info.name == "nn.functional.scaled_dot_product_attention")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def outcome(sample, dtype):
    """The output and the gradients, computed in `dtype`."""

    def convert(x):
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            return x
        return x.detach().to(dtype).requires_grad_(x.requires_grad)

    operands, options = tree_map(convert, ((sample.input, *sample.args), sample.kwargs))
    output = INFO.op(*operands, **options)
    leaves = [x for x in (*operands, *options.values()) if isinstance(x, torch.Tensor)]
    leaves = [x for x in leaves if x.requires_grad]
    return [output, *torch.autograd.grad(output.sum(), leaves)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_samples_of_attention(dtype):
    compared = 0
    for sample in INFO.sample_inputs("cpu", dtype, requires_grad=True):
        if sample.kwargs.get("dropout_p"):
            continue  # Other numbers are dropped.
        truth, theirs = outcome(sample, torch.float64), outcome(sample, dtype)
        with fw.enabled():
            ours = outcome(sample, dtype)
        for exact, their, our in zip(truth, theirs, ours, strict=True):
            assert (our.shape, our.dtype) == (their.shape, their.dtype)
            # As far from the truth as PyTorch, but for some roundings of numbers up to 9.
            roundings = 1 if torch.finfo(dtype).bits == 16 else 32
            rounding = roundings * torch.finfo(dtype).eps * exact.abs().amax().clamp(min=9)
            assert (our - exact).abs().amax() <= 2 * (their - exact).abs().amax() + rounding
        compared += 1
    assert compared > 10
