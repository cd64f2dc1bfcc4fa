"""What is not a number goes where it is attended to, and past what lengths leave out."""

import numpy as np
import pytest
import torch

import fusewire as fw
from fusewire.ops.attention import scaled_dot_product_attention_backward

QUERIES, KEYS, COLUMN = 150, 300, 3


def on_arrays(operands, upstream, options):
    output, lse = fw.scaled_dot_product_attention(*operands, return_lse=True, **options)
    gradients = scaled_dot_product_attention_backward(upstream, *operands, output, lse, **options)
    return [output, *gradients]


def on_tensors(operands, upstream, options):
    leaves = [torch.from_numpy(operand).requires_grad_() for operand in operands]
    options = {
        name: torch.from_numpy(option) if isinstance(option, np.ndarray) else option
        for name, option in options.items()
    }
    output = fw.scaled_dot_product_attention(*leaves, **options)
    gradients = torch.autograd.grad(output, leaves, torch.from_numpy(upstream))
    return [result.numpy() for result in (output.detach(), *gradients)]


def numbers(dtype):
    rng = np.random.default_rng(0)
    shapes = [(1, 1, QUERIES, 16), (1, 1, KEYS, 16), (1, 1, KEYS, 16), (1, 1, QUERIES, 16)]
    query, key, value, upstream = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return [query, key, value], upstream


def reached(kind):
    """The options of a call, and which keys each of its queries attends to."""
    behind = np.arange(KEYS) - np.arange(QUERIES)[:, None]
    match kind:
        case "all":
            return {}, np.full((QUERIES, KEYS), True)
        case "causal":
            return {"is_causal": True}, behind <= 0
        case "window":
            return {"window": (20, 5)}, (behind >= -20) & (behind <= 5)
        case "bool" | "float":
            seen = np.random.default_rng(1).random((QUERIES, KEYS)) > 0.5
            return {"attn_mask": seen if kind == "bool" else np.where(seen, 0, -np.inf)}, seen


@pytest.mark.parametrize("door", [on_arrays, on_tensors])
@pytest.mark.parametrize("kind", ["all", "causal", "window", "bool", "float"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("poisoned", ["query", "key", "value"])
@pytest.mark.parametrize("place", [0, 63, 64, 101, 140])
def test_what_is_attended_to_is_not_a_number_in_results(door, kind, dtype, poisoned, place):
    operands, upstream = numbers(dtype)
    options, seen = reached(kind)
    if kind == "float":
        options = {"attn_mask": options["attn_mask"].astype(dtype)}
    which = ["query", "key", "value"].index(poisoned)
    operands[which][0, 0, place, COLUMN] = np.nan
    output, of_query, of_key, of_value = (
        np.isnan(result[0, 0]) for result in door(operands, upstream, options)
    )
    hit = np.arange(QUERIES) == place if poisoned == "query" else seen[:, place]
    hit = hit & seen.any(1)
    met = seen[hit].any(0)
    assert hit.any()
    assert met.any()
    if poisoned == "value":
        assert output[hit, COLUMN].all()
        assert not np.delete(output, COLUMN, 1).any()
        assert not of_value.any()
    else:
        assert output[hit].all()
        assert of_value[met].all()
    assert of_query[hit].all()
    assert of_key[met].all()
    if kind == "all":
        assert (output.any(1) == hit).all()
        assert (of_query.any(1) == hit).all()


@pytest.mark.parametrize("door", [on_arrays, on_tensors])
@pytest.mark.parametrize("number", [np.inf, -np.inf])
def test_infinity_is_no_number_where_it_decides(door, number):
    operands, upstream = numbers(np.float32)
    operands[1][0, 0, 101, COLUMN] = number
    score = number * np.sign(operands[0][0, 0, :, COLUMN])
    output, of_query, *_ = (result[0, 0] for result in door(operands, upstream, {}))
    # A score of minus infinity is a weight of 0, but the gradient multiplies it by the key.
    assert (np.isnan(output).all(1) == (score == np.inf)).all()
    assert np.isfinite(output[score == -np.inf]).all()
    assert np.isnan(of_query[:, COLUMN]).all()
    operands, _ = numbers(np.float32)
    operands[2][0, 0, 101, COLUMN] = number
    output, of_query, *_ = (result[0, 0] for result in door(operands, upstream, {}))
    assert not np.isfinite(output[:, COLUMN]).any()
    assert np.isfinite(np.delete(output, COLUMN, 1)).all()
    assert np.isnan(of_query).all()


@pytest.mark.parametrize("door", [on_arrays, on_tensors])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_lies_beyond_the_lengths_is_not_read(door, number):
    operands, upstream = numbers(np.float32)
    options = {"query_lengths": np.array([101]), "key_lengths": np.array([201])}
    expected = door(operands, upstream, options)
    operands[0][:, :, 101:] = number
    operands[1][:, :, 201:] = number
    operands[2][:, :, 201:] = number
    upstream[:, :, 101:] = number
    for result, clean in zip(door(operands, upstream, options), expected, strict=True):
        np.testing.assert_array_equal(result, clean)
