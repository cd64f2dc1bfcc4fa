"""The linear layer on tensors: autograd, the dispatcher, compilation."""

import numpy as np
import pytest
import torch

import fusewire as fw
from fusewire.ops.linear import autograd, composed

ACTIVATIONS = [None, "gelu", "gelu_tanh", "relu", "sigmoid", "silu", "tanh"]


def operands(rows=5, input_size=7, output_size=3, dtype=torch.float64, requires_grad=True):
    generator = torch.Generator().manual_seed(0)
    shapes = [(rows, input_size), (output_size, input_size), (output_size,)]
    return [
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_(requires_grad)
        for shape in shapes
    ]


def gradients(function, *sources):
    generator = torch.Generator().manual_seed(1)
    output = function(*sources)
    weights = torch.randn(output.shape, generator=generator, dtype=output.dtype)
    return output, torch.autograd.grad(output, sources, weights)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_both_orders(activation):
    x, weight, bias = operands()
    for call in (
        lambda *sources: fw.linear(*sources, activation),
        lambda x, weight, bias: fw.linear(x.reshape(5, 1, 7), weight, bias, activation),
    ):
        assert torch.autograd.gradcheck(call, (x, weight, bias))
        assert torch.autograd.gradgradcheck(call, (x, weight, bias))


def test_gradients_of_some_operands():
    x, weight, bias = operands()
    assert torch.autograd.gradcheck(lambda x: fw.linear(x, weight.detach(), None, "tanh"), (x,))
    assert torch.autograd.gradcheck(
        lambda bias: fw.linear(x.detach(), weight.detach(), bias, "silu"), (bias,)
    )


def test_a_gradient_of_the_input_alone_computes_no_other(monkeypatch):
    asked = []
    original = composed.gradients_of_identity

    def spy(grad_output, input, weight, wanted):
        asked.append(tuple(wanted))
        return original(grad_output, input, weight, wanted)

    monkeypatch.setattr(composed, "gradients_of_identity", spy)
    x = torch.rand(3, 4, requires_grad=True)
    weight, bias = torch.rand(5, 4, requires_grad=True), torch.rand(5, requires_grad=True)
    output = fw.linear(2 * x, weight, bias)
    (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    assert asked == [(True, False, False)]
    gradient.square().sum().backward()
    expected = 2 * weight.detach().sum(0)
    torch.testing.assert_close(weight.grad, (4 * 3 * expected).expand(5, 4))
    torch.autograd.grad(fw.linear(x, weight, bias).sum(), (x, bias), create_graph=True)
    assert asked[-1] == (True, False, True)


def test_a_gradient_penalty_follows_only_its_own_operand():
    """A weight computed from the input must not count twice under create_graph."""
    (x, *_) = operands(rows=3, input_size=3)

    def penalty(linear):
        output = linear(x, x.tanh(), None).square().sum()
        (grad,) = torch.autograd.grad(output, x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), x)[0]

    torch.testing.assert_close(penalty(fw.linear), penalty(torch.nn.functional.linear))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (2, 3, 5), (5,), (1, 0, 3)])
def test_shapes_and_strides(shape, activation):
    x = torch.randn(shape, requires_grad=True)
    wide = torch.randn(2 * shape[-1], 6, requires_grad=True)
    bias = torch.randn(6, requires_grad=True)

    def ours(x, wide, bias):
        return fw.linear(x, wide[::2].T, bias, activation)

    def theirs(x, wide, bias):
        return composed.linear(x, wide[::2].T, bias, activation or "identity")

    got, got_gradients = gradients(ours, x, wide, bias)
    expected, expected_gradients = gradients(theirs, x, wide, bias)
    torch.testing.assert_close(got, expected)
    for got_one, expected_one in zip(got_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got_one, expected_one)


def test_an_expanded_gradient():
    x, weight, bias = operands()
    fw.linear(x, weight, bias).sum().backward()
    torch.testing.assert_close(bias.grad, torch.full((3,), 5.0, dtype=torch.float64))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["identity", "tanh", "silu"])
def test_the_operators_keep_the_dispatchers_rules(activation, bias):
    x, weight, offset = operands(requires_grad=False)
    fw.linear(x, weight)  # declares them
    arguments = (x, weight, offset if bias else None, activation)
    torch.library.opcheck(torch.ops.fusewire.linear.default, arguments)
    torch.library.opcheck(torch.ops.fusewire.linear_with_sums.default, arguments)
    output, sums = torch.ops.fusewire.linear_with_sums(*arguments)
    torch.testing.assert_close(output, torch.ops.fusewire.linear(*arguments))
    saved = sums if activation == "silu" else output
    backward = (output, x, weight, arguments[2], saved, activation, True, False, bias)
    torch.library.opcheck(torch.ops.fusewire.linear_backward.default, backward)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_batch_of_gradients_at_once():
    x, weight = torch.randn(3, 4, 5, requires_grad=True), torch.randn(6, 5)
    output, upstream = fw.linear(x, weight), torch.randn(2, 3, 4, 6)
    (actual,) = torch.autograd.grad(output, x, upstream, is_grads_batched=True)
    torch.testing.assert_close(actual, upstream @ weight)


def test_rows_that_do_not_lie_as_rows():
    x = torch.randn(4, 3, 5).transpose(0, 1).requires_grad_()
    weight, bias = torch.randn(6, 5, requires_grad=True), torch.randn(6, requires_grad=True)
    upstream = torch.randn(6, 4, 3).permute(2, 1, 0)
    operands = (x, weight, bias)
    actual = torch.autograd.grad(fw.linear(*operands), operands, upstream)
    exact = torch.autograd.grad(torch.nn.functional.linear(*operands), operands, upstream)
    torch.testing.assert_close(actual, exact)
    # The same gradient where the input itself does lie as rows.
    x = torch.randn(3, 4, 5, requires_grad=True)
    (actual,) = torch.autograd.grad(fw.linear(x, weight), x, upstream)
    torch.testing.assert_close(actual, upstream @ weight)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(dynamic):
    def layer(x, weight, bias):
        return fw.linear(x * 2, weight, bias, "tanh") + 1

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    sources = operands(dtype=torch.float32)
    output, grads = gradients(layer, *sources)
    compiled_output, compiled_grads = gradients(compiled, *sources)
    torch.testing.assert_close(compiled_output, output)
    torch.testing.assert_close(compiled_grads, grads)


def test_function_transforms_run_pytorchs_own():
    x, weight, bias = operands(requires_grad=False)
    got = torch.func.grad(lambda w: fw.linear(x, w, bias, "silu").sum())(weight)
    expected = torch.func.grad(lambda w: composed.linear(x, w, bias, "silu").sum())(weight)
    torch.testing.assert_close(got, expected)
    rows = torch.func.vmap(lambda row: fw.linear(row, weight, bias))(x)
    torch.testing.assert_close(rows, fw.linear(x, weight, bias))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_half_precision_is_on_the_whole_no_further_from_the_truth_than_pytorchs(activation, dtype):
    errors, rival_errors = np.zeros(4), np.zeros(4)
    for seed, sizes in enumerate([(1, 96, 64), (40, 100, 70), (300, 64, 48), (90, 33, 64)]):
        rounded = [source.detach().to(dtype) for source in operands(*sizes)]
        weights = torch.randn(*sizes[::2], generator=torch.Generator().manual_seed(seed)).to(dtype)

        def run(linear, to, rounded=rounded, weights=weights):
            sources = [source.to(to).requires_grad_() for source in rounded]
            output = linear(*sources, activation or "identity")
            return [output.detach(), *torch.autograd.grad(output, sources, weights.to(to))]

        truths = run(composed.linear, torch.float64)
        ours, rival = run(autograd.linear, dtype), run(composed.linear, dtype)
        assert all(result.dtype == dtype for result in ours)
        for got, total in [(ours, errors), (rival, rival_errors)]:
            total += [
                float((one.double() - truth).norm() / truth.norm())
                for one, truth in zip(got, truths, strict=True)
            ]
    assert (errors <= 1.05 * rival_errors).all()


def test_half_precision_keeps_its_double_backward():
    x = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    output = fw.linear(x, torch.ones(4, 3, dtype=torch.bfloat16), None, "silu")
    (grad,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    assert grad.dtype == torch.bfloat16
    assert torch.autograd.grad(grad.sum(), x)[0].isfinite().all()


def test_other_devices_run_pytorchs_own():
    x, weight, bias = operands(requires_grad=False)
    meta = fw.linear(x.to("meta"), weight.to("meta"), bias.to("meta"))
    assert meta.shape == (5, 3)


def test_the_number_of_threads_changes_no_bit():
    before = torch.get_num_threads()
    sources = operands(130, 700, 90, torch.float32)
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            output, grads = gradients(lambda *s: fw.linear(*s, "silu"), *sources)
            results.append([tensor.detach().clone() for tensor in (output, *grads)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(
    ("error", "words", "change"),
    [
        (ValueError, "7 features", lambda x, w, b: (x[:, :4], w, b)),
        (ValueError, r"bias must have shape \[3\]", lambda x, w, b: (x, w, b[:2])),
        (ValueError, "weight must have 2 dimensions", lambda x, w, b: (x, w[0], b)),
        (TypeError, "weight must be a PyTorch tensor, but is NoneType", lambda x, *_: (x, None)),
        (ValueError, "at least 1 dimension", lambda x, w, b: (x[0, 0], w, b)),
        (ValueError, "activation must be", lambda x, w, b: (x, w, b, "swish")),
        (TypeError, "weight must be float64 like", lambda x, w, b: (x, w.float(), b)),
        (TypeError, "weight must be float32, float64", lambda x, w, b: (x, w.long(), b)),
        (TypeError, "weight must be a PyTorch tensor", lambda x, w, b: (x, w.detach().numpy(), b)),
        (TypeError, "bias must be a PyTorch tensor", lambda x, w, _: (x, w, [1.0])),
    ],
)
def test_bad_input_is_told(requires_grad, error, words, change):
    with pytest.raises(error, match=words):
        fw.linear(*change(*operands(requires_grad=requires_grad)))


def test_operands_on_two_devices_are_refused():
    with pytest.raises(ValueError, match="must be on one device"):
        fw.linear(torch.ones(3, 4), torch.ones(5, 4, device="meta"))


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("requires_grad", [False, True])
def test_sparse_operands_run_pytorchs_operators(requires_grad):
    x, weight, bias = operands(dtype=torch.float32)
    weight, bias = (y.detach().requires_grad_(requires_grad) for y in (weight, bias))
    x = x.detach().flatten(0, -2)
    expected = torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(fw.linear(x.to_sparse(), weight, bias), expected)
    sparse = weight.detach().to_sparse_csr()
    torch.testing.assert_close(fw.linear(x, sparse, bias), expected)
