"""The linear layer on arrays, against its definition in float64."""

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

import fusewire as fw
from fusewire.ops.linear import linear_backward, reference

ACTIVATIONS = [None, "gelu", "gelu_tanh", "relu", "sigmoid", "silu", "tanh"]
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
EDGES = [0, 1, 31, 32, 33]


def operands(rows, input_size, output_size, dtype, seed=0):
    random = np.random.default_rng(seed)
    shapes = [(rows, input_size), (output_size, input_size), (output_size,), (rows, output_size)]
    return [random.standard_normal(shape).astype(dtype) for shape in shapes]


def assert_close(got, expected, dtype, depth):
    assert got.dtype == dtype
    bound = TOLERANCE[dtype] * max(1, depth) ** 0.5
    np.testing.assert_allclose(got, expected, rtol=bound, atol=bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_and_every_gradient(activation, dtype):
    for rows, input_size, output_size in itertools.product(EDGES, repeat=3):
        x, weight, bias, grad = operands(rows, input_size, output_size, dtype)
        output = fw.linear(x, weight, bias, activation)
        assert_close(output, reference.linear(x, weight, bias, activation), dtype, input_size)
        got = linear_backward(grad, x, weight, bias, output, activation)
        expected = reference.linear_backward(grad, x, weight, bias, activation)
        for got_one, expected_one in zip(got, expected, strict=True):
            assert got_one.shape == expected_one.shape
            assert_close(got_one, expected_one, dtype, max(rows, output_size))


@pytest.mark.parametrize(("dtype", "precision"), [(np.float16, 2**-11), (bfloat16, 2**-8)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_half_precision_is_rounded_once(activation, dtype, precision):
    for rows, input_size, output_size in [(1, 64, 33), (5, 7, 3), (33, 65, 40), (200, 31, 64)]:
        x, weight, bias, grad = operands(rows, input_size, output_size, dtype)
        output = fw.linear(x, weight, bias, activation)
        assert output.dtype == dtype
        expected = reference.linear(x, weight, bias, activation)
        np.testing.assert_allclose(output.astype(float), expected, rtol=precision, atol=1e-5)
        if activation in ("sigmoid", "tanh"):
            continue  # their slopes follow from the rounded output, not to this precision
        got = linear_backward(grad, x, weight, bias, output, activation)
        expected = reference.linear_backward(grad, x, weight, bias, activation)
        for got_one, expected_one in zip(got, expected, strict=True):
            assert got_one.dtype == dtype
            error = np.linalg.norm(got_one.astype(float) - expected_one)
            assert error <= 3 * precision * np.linalg.norm(expected_one) + 1e-30


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(0, 90)] * 3),
    activation=st.sampled_from(ACTIVATIONS),
    steps=st.tuples(*[st.sampled_from([-2, -1, 1, 3])] * 2),
    transposed=st.booleans(),
)
def test_any_strides(sizes, activation, steps, transposed):
    rows, input_size, output_size = sizes
    x, weight, bias, grad = operands(
        rows * abs(steps[0]), input_size * abs(steps[1]), output_size, np.float64
    )
    x, weight = x[:: steps[0], :: steps[1]], weight[:, :: steps[1]]
    grad = grad[:: steps[0]]
    if transposed:
        x, weight = np.asfortranarray(x), np.asfortranarray(weight)
    x.flags.writeable = False
    output = fw.linear(x, weight, bias[::-1], activation)
    expected = reference.linear(x, weight, bias[::-1], activation)
    assert_close(output, expected, np.float64, input_size)
    got = linear_backward(grad, x, weight, bias[::-1], output, activation)
    expected = reference.linear_backward(grad, x, weight, bias[::-1], activation)
    for got_one, expected_one in zip(got, expected, strict=True):
        assert_close(got_one, expected_one, np.float64, max(rows, output_size))


@pytest.mark.parametrize("leading", [(), (3,), (2, 0), (2, 3, 4)])
def test_leading_dimensions(leading):
    x = np.random.default_rng(0).standard_normal((*leading, 5))
    weight = np.random.default_rng(1).standard_normal((4, 5))
    output = fw.linear(x, weight)
    assert output.shape == (*leading, 4)
    np.testing.assert_allclose(output, x @ weight.T, atol=1e-12)


def test_without_a_bias_there_is_no_gradient_of_it():
    assert linear_backward(np.ones((2, 4)), np.ones((2, 3)), np.ones((4, 3)))[2] is None


def test_a_broadcast_gradient_is_read_in_place():
    x, weight, bias, _ = operands(6, 5, 4, np.float64)
    grad = np.broadcast_to(1.0, (6, 4))
    got = linear_backward(grad, x, weight, bias)
    expected = reference.linear_backward(grad, x, weight, bias, None)
    for got_one, expected_one in zip(got, expected, strict=True):
        np.testing.assert_allclose(got_one, expected_one, atol=1e-12)


def test_the_number_of_threads_changes_no_bit():
    before = fw.get_num_threads()
    x, weight, bias, _ = operands(130, 700, 90, np.float32)
    try:
        outputs = []
        for threads in (1, 2, 5):
            fw.set_num_threads(threads)
            outputs.append(fw.linear(x, weight, bias, "silu").tobytes())
    finally:
        fw.set_num_threads(before)
    assert len(set(outputs)) == 1


def test_not_a_number_and_infinity_go_through():
    x = np.array([[np.nan, 1.0], [np.inf, 1.0], [-np.inf, 1.0]])
    output = fw.linear(x, np.ones((1, 2)), activation="relu")[:, 0]
    assert np.isnan(output[0])
    assert output[1] == np.inf
    assert output[2] == 0


def unaligned(shape):
    memory = np.zeros(np.prod(shape) * 8 + 1, np.uint8)
    return memory[1:].view(np.float64).reshape(shape)


GOOD = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "3 features", lambda: fw.linear(np.zeros((2, 4)), GOOD)),
        (ValueError, r"bias must have shape \[2\]", lambda: fw.linear(GOOD, GOOD, np.zeros(3))),
        (ValueError, "weight must have 2 dimensions", lambda: fw.linear(GOOD, np.zeros(3))),
        (ValueError, "at least 1 dimension", lambda: fw.linear(np.ones(()), GOOD)),
        (ValueError, "activation must be", lambda: fw.linear(GOOD, GOOD, activation="swish")),
        (
            ValueError,
            "needs the layer's output",
            lambda: linear_backward(GOOD @ GOOD.T, GOOD, GOOD, activation="relu"),
        ),
        (ValueError, "grad_output must have shape", lambda: linear_backward(GOOD, GOOD, GOOD)),
        (
            ValueError,
            r"dimensions of the input, \(2, 3\), but has \(3, 2\)",
            lambda: linear_backward(np.ones((3, 2, 5)), np.ones((2, 3, 4)), np.ones((5, 4))),
        ),
        (ValueError, "activation must be .* but is 3", lambda: fw.linear(GOOD, GOOD, activation=3)),
        (
            TypeError,
            "weight must be float64 like",
            lambda: fw.linear(GOOD, GOOD.astype(np.float32)),
        ),
        (TypeError, "input must be float32, float64", lambda: fw.linear(GOOD.astype(int), GOOD)),
        (TypeError, "weight .* byte order", lambda: fw.linear(GOOD, GOOD.astype(">f8"))),
        (TypeError, "weight must be aligned", lambda: fw.linear(GOOD, unaligned((2, 3)))),
        (TypeError, "weight must be a NumPy array, but is list", lambda: fw.linear(GOOD, [1])),
        (TypeError, "input must be .* but is list", lambda: fw.linear([1], GOOD)),
    ],
)
def test_bad_input_is_told(error, words, call):
    with pytest.raises(error, match=words):
        call()


def test_sizes_that_no_memory_holds_are_an_error():
    x = np.broadcast_to(1.0, (2**40, 1))
    weight = np.broadcast_to(1.0, (2**40, 1))
    with pytest.raises(MemoryError):
        fw.linear(x, weight)


def test_results_outlive_their_operands():
    output = fw.linear(np.ones((2, 3)), np.ones((4, 3)))
    assert output.flags.writeable
    assert sys.getrefcount(output) == 2
