"""PyTorch's own samples of attention, run through our kernels."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_map

import fusewire as fw

INFO = next(info for info in op_db if info.name == "nn.functional.scaled_dot_product_attention")
ROUNDINGS = {torch.float32: 32, torch.float64: 64, torch.bfloat16: 1, torch.float16: 1}
"""Allowed beyond twice PyTorch's error. In float64 the truth is itself rounded: PyTorch's fused and
composed operators differ by up to 32 of them."""


DOORS = {
    "PyTorch": (functional.scaled_dot_product_attention, nullcontext),
    "enabled": (functional.scaled_dot_product_attention, fw.enabled),
    "operator": (fw.scaled_dot_product_attention, nullcontext),
}
DRAWS = 2048


def distinct_samples(dtype):
    """Without those that let equally many heads share keys."""
    samples = INFO.sample_inputs("cpu", dtype, requires_grad=True)
    return [sample for sample in samples if not sample.kwargs.get("enable_gqa")]


def fused(query, key, *others, **options):
    """PyTorch's fused operator, which does not broadcast."""
    query = query.expand(*key.shape[:-2], *query.shape[-2:])
    return functional.scaled_dot_product_attention(query, key, *others, **options)


def outcome(sample, dtype, attention):
    """The output and the gradients, computed in `dtype`."""

    def convert(x):
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            return x
        return x.detach().to(dtype).requires_grad_(x.requires_grad)

    operands, options = tree_map(convert, ((sample.input, *sample.args), sample.kwargs))
    output = attention(*operands, **options)
    leaves = [x for x in (*operands, *options.values()) if isinstance(x, torch.Tensor)]
    leaves = [x for x in leaves if x.requires_grad]
    return [output, *torch.autograd.grad(output.sum(), leaves)]


@pytest.mark.parametrize("door", ["enabled", "operator"])
@pytest.mark.parametrize("dtype", ROUNDINGS, ids=str)
def test_samples_of_attention(dtype, door):
    attention, context = DOORS[door]
    compared = 0
    for sample in INFO.sample_inputs("cpu", dtype, requires_grad=True):
        if sample.kwargs.get("dropout_p"):
            continue  # Other numbers are dropped.
        truth, theirs = (outcome(sample, kind, fused) for kind in (torch.float64, dtype))
        with context():
            ours = outcome(sample, dtype, attention)
        for exact, their, our in zip(truth, theirs, ours, strict=True):
            assert (our.shape, our.dtype) == (their.shape, their.dtype)
            # As far from the truth as PyTorch, but for some roundings of numbers up to 9.
            rounding = ROUNDINGS[dtype] * torch.finfo(dtype).eps * exact.abs().amax().clamp(min=9)
            assert (our - exact).abs().amax() <= 2 * (their - exact).abs().amax() + rounding
        compared += 1
    assert compared > 10


@pytest.mark.parametrize("door", ["enabled", "operator"])
def test_derivatives_of_samples(door):
    """Of both orders; PyTorch's fused operator, which is beneath its autograd, has the first."""
    attention, context = DOORS[door]
    samples = distinct_samples(torch.float64)
    assert len(samples) == 13
    for sample in samples:
        options = dict(sample.kwargs)
        operands = [sample.input, *sample.args]
        if "attn_mask" in options:
            operands.append(options.pop("attn_mask"))

        def call(*operands, options=options):
            torch.manual_seed(0)  # The same is dropped each time.
            return attention(*operands, **options)

        with context():
            assert torch.autograd.gradcheck(call, operands, fast_mode=True)
            if door == "operator" or options["dropout_p"]:
                assert torch.autograd.gradgradcheck(call, operands, fast_mode=True)


@pytest.mark.parametrize("door", DOORS)
def test_dropout_of_samples_has_pytorchs_mean_and_variance(door):
    """A weight is kept with probability 1 - p and divided by that, in both passes."""
    attention, context = DOORS[door]
    compared = 0
    for sample in distinct_samples(torch.float32):
        rate, is_causal = sample.kwargs["dropout_p"], sample.kwargs["is_causal"]
        if not rate or sample.input.dim() != sample.args[0].dim():
            continue
        truth = [x.detach().double().requires_grad_() for x in (sample.input, *sample.args)]
        query, key, value = truth
        scores = query @ key.mT / query.shape[-1] ** 0.5
        if is_causal:
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
            scores = scores.masked_fill(~seen, -torch.inf)
        weights = scores.softmax(-1)
        means = [weights @ value]
        means += torch.autograd.grad(means[0].sum(), truth)
        variance = rate / (1 - rate) * weights.detach() ** 2 @ value.detach() ** 2
        operands = [
            x.detach().expand(DRAWS, *x.shape).clone().requires_grad_()
            for x in (sample.input, *sample.args)
        ]
        with context():
            torch.manual_seed(0)
            output = attention(*operands, dropout_p=rate, is_causal=is_causal)
            torch.manual_seed(0)
            assert torch.equal(attention(*operands, dropout_p=rate, is_causal=is_causal), output)
            again = attention(*operands, dropout_p=rate, is_causal=is_causal)
            draws = [output, *torch.autograd.grad(output.sum(), operands)]
        assert not torch.equal(again, output)
        for drawn, mean in zip(draws, means, strict=True):
            numbers = drawn.detach().double()
            error = numbers.std(0) / DRAWS**0.5
            assert ((numbers.mean(0) - mean).abs() <= 6 * error + 1e-5).all()
        found = output.detach().double().var(0)
        # The few draws of a sum of few weights: its fourth moment is not far above the normal one.
        torch.testing.assert_close(found, variance, rtol=0.3, atol=1e-6)
        assert (found / variance).nan_to_num(1).mean() == pytest.approx(1, abs=0.02)
        compared += 1
    assert compared == 4
