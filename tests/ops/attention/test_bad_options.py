"""Options and types that say nothing, shapes without elements: alike through both doors."""

import numpy as np
import pytest
import torch

import fusewire as fw
from fusewire.ops.attention import scaled_dot_product_attention_backward

ONES = np.ones((1, 2, 4, 8), np.float32)
DOORS = pytest.mark.parametrize("door", [np.asarray, torch.as_tensor])


@DOORS
@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"softcap": 1e300}, ValueError, "softcap must be positive and finite in float32"),
        ({"softcap": 1e-320}, ValueError, "softcap must be positive and finite in float32"),
        ({"softcap": "x"}, TypeError, "softcap must be a number, but is 'x'"),
        ({"dropout_p": None}, TypeError, "dropout_p must be a number, but is None"),
        ({"dropout_p": "0.5"}, TypeError, "dropout_p must be a number, but is '0.5'"),
        ({"scale": "x"}, TypeError, "scale must be a number, but is 'x'"),
        ({"window": (10**30, 1)}, ValueError, "window must be two whole numbers"),
        ({"window": (None, 1)}, ValueError, r"window must be .*, but is \(None, 1\)"),
        ({"window": ("a", "b")}, ValueError, "window must be two whole numbers"),
        ({"window": ("1", "2")}, ValueError, "window must be two whole numbers"),
        ({"window": (np.nan, 1)}, ValueError, "window must be two whole numbers"),
        ({"window": (1.5, 1)}, ValueError, "window must be two whole numbers"),
        ({"is_causal": "no"}, TypeError, "is_causal must be True or False, but is 'no'"),
        ({"is_causal": None}, TypeError, "is_causal must be True or False, but is None"),
        ({"enable_gqa": "no"}, TypeError, "enable_gqa must be True or False, but is 'no'"),
        ({"seed": "x"}, ValueError, "seed must be a whole number .*, but is 'x'"),
        ({"seed": 2.7, "dropout_p": 0.5}, ValueError, "seed must be a whole number"),
        ({"seed": np.array(2.7), "dropout_p": 0.5}, ValueError, "seed must be a whole number"),
    ],
)
def test_options_that_say_nothing(door, options, kind, words):
    x = door(ONES)
    # The first call with tensors takes the long way.
    fw.scaled_dot_product_attention(x, x, x)
    with pytest.raises(kind, match=words):
        fw.scaled_dot_product_attention(x, x, x, **options)


@DOORS
@pytest.mark.parametrize("number", [np.float32, np.float64, np.int64, torch.tensor])
def test_numbers_of_any_library(door, number):
    x = door(ONES)
    found = fw.scaled_dot_product_attention(
        x, x, x, scale=number(2), softcap=number(3), window=(number(2), 1.0), is_causal=np.True_
    )
    plain = fw.scaled_dot_product_attention(
        x, x, x, scale=2.0, softcap=3.0, window=(2, 1), is_causal=True
    )
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("dropout_p", [0.0, 0.5])
def test_a_tensor_of_fractions_is_no_seed(dropout_p):
    x = torch.as_tensor(ONES)
    with pytest.raises(ValueError, match=r"seed must be a whole number .*2\.7"):
        fw.scaled_dot_product_attention(x, x, x, dropout_p=dropout_p, seed=torch.tensor(2.7))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_that_are_not_served_are_told():
    x = torch.as_tensor(ONES)
    with pytest.raises(TypeError, match=r"query must be float32, .*, but is float8_e4m3fn"):
        fw.scaled_dot_product_attention(*[x.to(torch.float8_e4m3fn)] * 3)
    with pytest.raises(TypeError, match="key must be dense, but is sparse_coo"):
        fw.scaled_dot_product_attention(x, x.to_sparse(), x)
    with pytest.raises(TypeError, match="query must be dense, but is sparse_coo"):
        fw.scaled_dot_product_attention(x.to_sparse(), x, x)
    nested = torch.nested.nested_tensor([x[0]], layout=torch.jagged)
    with pytest.raises(TypeError, match="query must be dense, but is nested"):
        fw.scaled_dot_product_attention(nested, x, x)


@DOORS
def test_operands_that_do_not_fit_are_told(door):
    x = door(ONES)
    with pytest.raises(
        ValueError, match=r"broadcastable to \[2, 4, 4\], but has shape \[1, 1, 4, 4\]"
    ):
        fw.scaled_dot_product_attention(x[0], x[0], x[0], door(np.ones((1, 1, 4, 4))))
    for name in ("alibi_slopes", "sinks"):
        with pytest.raises(TypeError, match=f"{name} must be real numbers, but are complex64"):
            fw.scaled_dot_product_attention(x, x, x, **{name: door(np.ones(2, np.complex64))})
        with pytest.raises(ValueError, match=f"{name} must be broadcastable to .*1, 0]"):
            fw.scaled_dot_product_attention(x, x, x, **{name: door(np.ones(0))})
    for kind in (np.float32, bool):
        with pytest.raises(TypeError, match="key_lengths must be whole numbers"):
            fw.scaled_dot_product_attention(x, x, x, key_lengths=door(np.ones(1, kind)))


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_heads_that_there_are_none_of(shape):
    query, numbers = np.ones((2, 0, 4, 8)), np.ones(shape)
    options = {"alibi_slopes": numbers, "sinks": numbers}
    output, lse = fw.scaled_dot_product_attention(query, query, query, return_lse=True, **options)
    assert (output.shape, lse.shape) == ((2, 0, 4, 8), (2, 0, 4))
    found = scaled_dot_product_attention_backward(
        output, query, query, query, output, lse, of=["query", *options], **options
    )
    assert [gradient.shape for gradient in found] == [query.shape, shape, shape]
    leaves = [torch.as_tensor(x).requires_grad_() for x in (query, numbers, numbers)]
    output = fw.scaled_dot_product_attention(
        *[leaves[0]] * 3, alibi_slopes=leaves[1], sinks=leaves[2]
    )
    gradients = torch.autograd.grad(output.sum(), leaves)
    assert [tuple(gradient.shape) for gradient in gradients] == [query.shape, shape, shape]


@pytest.mark.parametrize("name", ["alibi_slopes", "sinks"])
@pytest.mark.parametrize("shape", [(6, 2), (2,), (3, 2, 2), (6, 1), (1, 2)])
def test_gradients_of_numbers_of_heads_with_two_batch_dimensions(name, shape):
    rng = np.random.default_rng(0)
    query, key, value, upstream = (rng.standard_normal((2, 3, 2, 4, 8)) for _ in range(4))
    numbers = rng.standard_normal(shape)
    output, lse = fw.scaled_dot_product_attention(
        query, key, value, return_lse=True, **{name: numbers}
    )
    (found,) = scaled_dot_product_attention_backward(
        upstream, query, key, value, output, lse, of=[name], **{name: numbers}
    )
    leaf = torch.tensor(numbers, requires_grad=True)
    tensors = [torch.from_numpy(x) for x in (query, key, value)]
    result = fw.scaled_dot_product_attention(*tensors, **{name: leaf})
    (true,) = torch.autograd.grad(result, leaf, torch.from_numpy(upstream))
    np.testing.assert_allclose(found, true, atol=1e-12)


def test_the_gradient_of_one_number_is_an_array():
    mask = np.array(0.5, np.float32)
    output, lse = fw.scaled_dot_product_attention(ONES, ONES, ONES, mask, return_lse=True)
    (gradient,) = scaled_dot_product_attention_backward(
        ONES, ONES, ONES, ONES, output, lse, mask, of=["attn_mask"]
    )
    assert type(gradient) is np.ndarray
    assert (gradient.shape, gradient.dtype) == ((), np.float32)
