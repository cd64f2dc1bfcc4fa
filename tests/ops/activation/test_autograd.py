"""Activations of tensors: autograd, the dispatcher, compilation."""

import pytest
import torch

from fusewire.ops.activation import activate, composed
from fusewire.ops.activation.composed import FOLLOWS_FROM_OUTPUT

ACTIVATIONS = ["gelu", "gelu_tanh", "relu", "sigmoid", "silu", "tanh"]


def numbers(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator, dtype=dtype)).requires_grad_()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(), (5,), (3, 1, 4)])
def test_gradients_of_both_orders(activation, shape):
    def call(x):
        return activate(x, activation)

    x = numbers(*shape)
    assert torch.autograd.gradcheck(call, (x,))
    assert torch.autograd.gradgradcheck(call, (x,))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_further_from_the_truth_than_pytorchs(activation, dtype):
    x, upstream = (numbers(90, 333, seed=seed).detach().to(dtype) for seed in (0, 1))

    def run(function, to):
        source = x.to(to).requires_grad_()
        output = function(source, activation)
        return output.detach(), *torch.autograd.grad(output, source, upstream.to(to))

    truths = run(composed.activate, torch.float64)
    ours, rival = run(activate, dtype), run(composed.activate, dtype)
    for got, theirs, truth in zip(ours, rival, truths, strict=True):
        assert got.dtype == dtype
        errors = [(one.double() - truth).norm() for one in (got, theirs)]
        # Of tanh alone, PyTorch's are nearly rounded once (docs/numerics.md).
        assert errors[0] <= (1.25 if activation == "tanh" else 1.05) * errors[1]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (2, 3, 5), (), (1, 0, 3)])
def test_shapes_and_strides(activation, shape):
    x = numbers(*shape).detach().mT if len(shape) > 1 else numbers(*shape).detach()
    for source in (x.clone().requires_grad_(), x.requires_grad_()):
        output = activate(source, activation)
        torch.testing.assert_close(output, composed.activate(source, activation))
        upstream = torch.ones(()).to(output).expand(output.shape)
        (got,) = torch.autograd.grad(output, source, upstream)
        (expected,) = torch.autograd.grad(composed.activate(source, activation).sum(), source)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_operators_keep_the_dispatchers_rules(activation):
    x = numbers(3, 4).detach()
    output = activate(x, activation)  # declares them
    torch.library.opcheck(torch.ops.fusewire.activate.default, (x, activation))
    saved = output if activation in FOLLOWS_FROM_OUTPUT else x
    arguments = (output, saved, activation)
    torch.library.opcheck(torch.ops.fusewire.activate_backward.default, arguments)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_batch_of_gradients_at_once():
    x, upstream = numbers(3, 4), torch.randn(2, 3, 4, dtype=torch.float64)
    (got,) = torch.autograd.grad(activate(x, "silu"), x, upstream, is_grads_batched=True)
    expected = torch.autograd.grad(torch.nn.functional.silu(x), x, upstream, is_grads_batched=True)
    torch.testing.assert_close(got, *expected)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(dynamic):
    def layer(x):
        return activate(x * 2, "gelu_tanh") + 1

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    x = numbers(3, 4, 5)
    torch.testing.assert_close(compiled(x), layer(x))
    got, expected = (torch.autograd.grad(f(x).square().sum(), x) for f in (compiled, layer))
    torch.testing.assert_close(got, expected)


def test_function_transforms_and_other_devices_run_pytorchs_own():
    x = numbers(3, 4).detach()
    got = torch.func.vmap(torch.func.grad(lambda row: activate(row, "gelu").sum()))(x)
    source = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(activate(source, "gelu").sum(), source)
    torch.testing.assert_close(got, expected)
    assert activate(x.to("meta"), "tanh").shape == (3, 4)


def test_autocast_leaves_the_type():
    with torch.autocast("cpu", torch.bfloat16):
        assert activate(numbers(3, dtype=torch.float32), "gelu").dtype == torch.float32


def test_the_number_of_threads_changes_no_bit():
    before = torch.get_num_threads()
    x = numbers(130, 700, dtype=torch.float32)
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            output = activate(x, "silu")
            results.append([output.detach(), *torch.autograd.grad(output.sum(), x)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_an_unknown_activation_is_told(requires_grad):
    with pytest.raises(ValueError, match="activation must be"):
        activate(numbers(3).detach().requires_grad_(requires_grad), "swish")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_and_sparse_tensors_run_pytorchs_own():
    rows = [numbers(size, 4).detach() for size in (3, 2)]
    nested = activate(torch.nested.nested_tensor(rows), "gelu")
    for got, row in zip(nested.unbind(), rows, strict=True):
        torch.testing.assert_close(got, activate(row, "gelu"))
    sparse = activate(rows[0].to_sparse(), "relu")
    torch.testing.assert_close(sparse.to_dense(), activate(rows[0], "relu"))
