"""Activations of arrays, against their definitions in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

import fusewire as fw
from fusewire.ops.activation import activate, activate_backward, reference
from fusewire.ops.activation.composed import FOLLOWS_FROM_OUTPUT

ACTIVATIONS = ["gelu", "gelu_tanh", "relu", "sigmoid", "silu", "tanh"]
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-14}


def numbers(shape, dtype, seed=0):
    drawn = np.asarray(np.random.default_rng(seed).standard_normal(shape))
    return np.asarray(2 * drawn, dtype)


def saved(x, output, activation):
    return output if activation in FOLLOWS_FROM_OUTPUT else x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (31,), (33, 65), (2, 3, 1030)])
def test_forward_and_gradient(activation, dtype, shape):
    x, grad = numbers(shape, dtype), numbers(shape, dtype, 1)
    output = activate(x, activation)
    expected, slope = reference.activate(x.astype(np.float64), activation)
    bound = TOLERANCE[dtype]
    assert output.dtype == dtype
    assert output.shape == shape
    np.testing.assert_allclose(output, expected, rtol=bound, atol=bound)
    got = activate_backward(grad, saved(x, output, activation), activation)
    assert got.dtype == dtype
    assert got.shape == shape
    np.testing.assert_allclose(got, grad * slope, rtol=10 * bound, atol=10 * bound)


@pytest.mark.parametrize(("dtype", "precision"), [(np.float16, 2**-11), (bfloat16, 2**-8)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_half_precision_is_rounded_once(activation, dtype, precision):
    x, grad = numbers((7, 190), dtype), numbers((7, 190), dtype, 1)
    output = activate(x, activation)
    expected, slope = reference.activate(x.astype(np.float64), activation)
    np.testing.assert_allclose(output.astype(float), expected, rtol=precision, atol=1e-5)
    if activation in ("sigmoid", "tanh"):
        return  # their slopes follow from the rounded output, not to this precision
    got = activate_backward(grad, saved(x, output, activation), activation)
    exact = grad.astype(float) * slope
    np.testing.assert_allclose(got.astype(float), exact, rtol=precision, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 40), max_size=3),
    activation=st.sampled_from(ACTIVATIONS),
    step=st.sampled_from([-2, -1, 1, 3]),
    reversed_axes=st.booleans(),
)
def test_any_strides(shape, activation, step, reversed_axes):
    x = numbers([size * abs(step) for size in shape], np.float64)
    x = x[(..., *(slice(None, None, step) for _ in shape))]
    x = x.transpose() if reversed_axes else x
    x.flags.writeable = False
    output = activate(x, activation)
    expected, slope = reference.activate(x, activation)
    np.testing.assert_allclose(output, expected, rtol=1e-13, atol=1e-14)
    grad = np.broadcast_to(1.0, x.shape)
    got = activate_backward(grad, saved(x, output, activation), activation)
    np.testing.assert_allclose(got, slope, rtol=1e-12, atol=1e-13)


def test_the_number_of_threads_changes_no_bit():
    before = fw.get_num_threads()
    x = numbers((130, 700), np.float32)
    try:
        outputs = []
        for threads in (1, 2, 5):
            fw.set_num_threads(threads)
            outputs.append(activate(x, "gelu").tobytes())
    finally:
        fw.set_num_threads(before)
    assert len(set(outputs)) == 1


def test_not_a_number_and_infinity_go_through():
    x = np.array([np.nan, np.inf, -np.inf])
    assert np.isnan(activate(x, "tanh")[0])
    assert activate(x, "relu")[1:].tolist() == [np.inf, 0]
    assert activate(x, "sigmoid")[1:].tolist() == [1, pytest.approx(0, abs=1e-300)]


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "activation must be 'gelu', .* or 'tanh'", lambda: activate(np.zeros(3), "x")),
        (ValueError, "activation must be .* but is None", lambda: activate(np.zeros(3), None)),
        (ValueError, "activation must be .* is None", lambda: activate(torch.zeros(3), None)),
        (TypeError, "a plain array", lambda: activate(np.ma.zeros(3), "relu")),
        (TypeError, "input must be float32, float64", lambda: activate(np.arange(3), "relu")),
        (TypeError, "input .* byte order", lambda: activate(np.zeros(3, ">f8"), "relu")),
        (TypeError, "input must be .* but is list", lambda: activate([1.0], "relu")),
        (
            ValueError,
            r"saved must have the shape of grad_output, \[3\], but has \[4\]",
            lambda: activate_backward(np.zeros(3), np.zeros(4), "relu"),
        ),
        (
            TypeError,
            "saved must be float64 like",
            lambda: activate_backward(np.zeros(3), np.zeros(3, np.float32), "relu"),
        ),
        (
            TypeError,
            "saved must be a NumPy array, but is list",
            lambda: activate_backward(np.zeros(1), [1.0], "relu"),
        ),
    ],
)
def test_bad_input_is_told(error, words, call):
    with pytest.raises(error, match=words):
        call()
