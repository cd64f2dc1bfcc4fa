"""PyTorch's own samples of its recurrent and attention modules, run through `fw.fuse`."""

import copy
import pickle
import re

import pytest
import torch
from torch.testing._internal.common_modules import FunctionInput, ModuleErrorEnum, module_db
from torch.utils._pytree import tree_leaves, tree_map

import fusewire as fw

FUSED = (
    *(torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU),
    *(torch.nn.RNNCell, torch.nn.LSTMCell, torch.nn.GRUCell),
    *(torch.nn.MultiheadAttention, torch.nn.Transformer),
    *(torch.nn.TransformerEncoderLayer, torch.nn.TransformerDecoderLayer),
)
INFOS = [info for info in module_db if info.module_cls in FUSED]

pytestmark = pytest.mark.filterwarnings("ignore")


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def outcome(module, forward, gradients):
    """Outputs and, if wanted, the gradients of inputs and parameters."""

    def fresh(x):
        return x.detach().clone().requires_grad_(x.requires_grad)

    args, kwargs = tree_map(
        lambda x: fresh(x) if isinstance(x, torch.Tensor) else x, (forward.args, forward.kwargs)
    )
    with torch.set_grad_enabled(gradients):
        outputs = tensors(module(*args, **kwargs))
    if not gradients:
        return outputs
    leaves = [x for x in tensors((args, kwargs)) if x.requires_grad] + list(module.parameters())
    loss = sum(
        (x * torch.linspace(-1, 1, x.numel()).reshape(x.shape).to(x.dtype)).sum() for x in outputs
    )
    return outputs + list(torch.autograd.grad(loss, leaves, allow_unused=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_samples_of_modules(info, training):
    samples = info.module_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=training, training=training
    )
    compared = 0
    for sample in samples:
        constructor, forward = sample.constructor_input, sample.forward_input
        if forward is None:
            continue
        theirs = info.module_cls(*constructor.args, **constructor.kwargs).train(training)
        ours = copy.deepcopy(theirs)
        report = fw.fuse(ours)
        assert report.changed
        assert not report.left_alone
        expected, actual = (outcome(module, forward, training) for module in (theirs, ours))
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5, equal_nan=True)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        if compared % 8 == 0:
            for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
                again = outcome(other, forward, training)
                torch.testing.assert_close(again, actual, rtol=0, atol=0, equal_nan=True)
        fw.fuse(ours, undo=True)
        assert type(ours) is info.module_cls
        compared += 1
    assert compared


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_samples_in_other_types(info, dtype):
    """Some of the samples: no further from float64 than twice PyTorch, but for some roundings."""
    samples = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=True
    )
    samples = [sample for sample in samples if sample.forward_input is not None]
    torch.manual_seed(0)
    # Of float64 the truth is rounded as well, and normalisation of 4 numbers magnifies that.
    roundings = 256 if dtype == torch.float64 else 40
    for sample in samples[:: max(1, len(samples) // 6)]:
        constructor, forward = sample.constructor_input, sample.forward_input
        theirs = info.module_cls(*constructor.args, **constructor.kwargs).to(dtype)
        ours, exact = copy.deepcopy(theirs), copy.deepcopy(theirs).double()
        fw.fuse(ours)
        truth = outcome(exact, as_float64(forward), True)
        for our, their, true in zip(
            outcome(ours, forward, True), outcome(theirs, forward, True), truth, strict=True
        ):
            assert (our is None) == (their is None)
            if our is None or not our.numel():
                continue
            assert (our.shape, our.dtype) == (their.shape, their.dtype)
            assert torch.equal(our.isnan(), their.isnan())
            errors = [(x.double() - true).nan_to_num(0).abs().amax() for x in (our, their)]
            rounding = torch.finfo(dtype).eps * true.nan_to_num(0).abs().amax().clamp(min=1)
            assert errors[0] <= 2 * errors[1] + roundings * rounding


def as_float64(forward):
    def convert(x):
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            return x
        return x.detach().double().requires_grad_(x.requires_grad)

    args, kwargs = tree_map(convert, (forward.args, forward.kwargs))
    return FunctionInput(*args, **kwargs)


@pytest.mark.parametrize(
    "info", [info for info in INFOS if info.module_error_inputs_func], ids=lambda info: info.name
)
def test_errors_of_modules(info):
    samples = info.module_error_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
    )
    for sample in samples:
        constructor = sample.module_error_input.constructor_input
        forward = sample.module_error_input.forward_input
        if sample.error_on is ModuleErrorEnum.CONSTRUCTION_ERROR:
            module, call = getattr(fw.nn, info.module_cls.__name__), constructor
        else:
            module, call = info.module_cls(*constructor.args, **constructor.kwargs), forward
            fw.fuse(module)
        with pytest.raises(sample.error_type) as raised:
            module(*call.args, **call.kwargs)
        assert re.search(sample.error_regex, str(raised.value))
