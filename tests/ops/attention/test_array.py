"""Attention on arrays: any combination of options against the definition, and bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

import fusewire as fw
from fusewire.ops.attention import reference, scaled_dot_product_attention_backward
from fusewire.ops.attention.dropout import dropped
from fusewire.ops.attention.options import resolve
from fusewire.ops.attention.reference import Extras


@st.composite
def calls(draw):
    """The operands and keyword arguments of a call with one batch dimension."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    batch, kv_heads, group = (draw(st.integers(1, 3)) for _ in range(3))
    query_len, key_len = draw(st.integers(0, 70)), draw(st.integers(0, 150))
    head_dim, value_dim = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    heads = kv_heads * group

    def numbers(*shape):
        order = draw(st.sampled_from([(0, 1, 2, 3), (0, 2, 1, 3), (0, 1, 3, 2)]))
        stored = rng.standard_normal([shape[axis] for axis in order])
        return stored.transpose(np.argsort(order))

    operands = (
        numbers(batch, heads, query_len, head_dim),
        numbers(batch, kv_heads, key_len, head_dim),
        numbers(batch, kv_heads, key_len, value_dim),
    )
    options = {
        "is_causal": draw(st.booleans()),
        "causal_alignment": draw(st.sampled_from(["top_left", "bottom_right"])),
        "scale": draw(st.sampled_from([None, 0.3])),
    }
    if draw(st.booleans()):
        options["window"] = (draw(st.integers(-1, 40)), draw(st.integers(-1, 40)))
    if draw(st.booleans()):
        options["softcap"] = 1.5
    if draw(st.booleans()):
        options["dropout_p"] = 0.3
    scores = (batch, heads, query_len, key_len)
    masked = [size if draw(st.booleans()) else 1 for size in scores]
    extras = {}
    match draw(st.sampled_from([None, "bool", "float"])):
        case "bool":
            extras["attn_mask"] = rng.random(masked) > 0.3
        case "float":
            extras["attn_mask"] = rng.standard_normal(masked)
    if draw(st.booleans()):
        extras["query_lengths"] = rng.integers(0, query_len + 1, batch)
        extras["key_lengths"] = rng.integers(0, key_len + 1, batch)
    per_head = draw(st.sampled_from([(heads,), (batch, heads)]))
    if draw(st.booleans()):
        extras["alibi_slopes"] = rng.random(per_head)
    if draw(st.booleans()):
        extras["sinks"] = rng.standard_normal(per_head)
    return operands, options, extras


@settings(max_examples=100, deadline=None)
@given(calls())
def test_any_combination_is_as_defined(call):
    operands, options, extras = call
    arguments = {"enable_gqa": True, "seed": 3, **options, **extras}
    output, lse = fw.scaled_dot_product_attention(*operands, return_lse=True, **arguments)
    given_options = {"window": None, "softcap": None, "dropout_p": 0.0, **options}
    resolved = resolve(operands[0].shape[-1], **given_options)
    extras = Extras(**extras, seed=np.asarray(3))
    expected = reference.attention(*operands, resolved, extras)
    np.testing.assert_allclose(output, expected[0], atol=1e-12)
    np.testing.assert_allclose(lse, expected[1], atol=1e-12)

    rng = np.random.default_rng(0)
    grad_output, grad_lse = rng.standard_normal(output.shape), rng.standard_normal(lse.shape)
    true = reference.attention_backward(grad_output, grad_lse, operands, resolved, extras)
    of = [name for name, gradient in true._asdict().items() if gradient is not None]
    gradients = scaled_dot_product_attention_backward(
        grad_output, *operands, output, lse, grad_lse=grad_lse, of=of, **arguments
    )
    for name, gradient in zip(of, gradients, strict=True):
        # A slope's gradient has terms as large as distances.
        bound = 1e-9 if name == "alibi_slopes" else 1e-11
        np.testing.assert_allclose(gradient, getattr(true, name), atol=bound, err_msg=name)


def test_the_definition_agrees_with_finite_differences():
    """The truth that everything else is compared with, checked by itself."""
    rng = np.random.default_rng(0)
    operands = tuple(rng.standard_normal((1, heads, 4, 3)) for heads in (2, 1, 1))
    options = resolve(3, True, "top_left", (2, 1), None, 1.5, 0.2)
    mask, slopes, sinks = (rng.standard_normal(shape) for shape in [(2, 1, 4), (2,), (1, 2)])
    seed = np.asarray(1)
    weights = rng.standard_normal((1, 2, 4, 3)), rng.standard_normal((1, 2, 4))

    def loss(query, key, value, *added):
        extras = Extras(*added, seed=seed)
        output, lse = reference.attention(query, key, value, options, extras)
        return (output * weights[0]).sum() + (lse * weights[1]).sum()

    everything = (*operands, mask, slopes, sinks)
    extras = Extras(mask, slopes, sinks, seed=seed)
    gradients = reference.attention_backward(*weights, operands, options, extras)
    step = 1e-6
    for place, gradient in enumerate(gradients):
        for index in np.ndindex(gradient.shape):
            moved = [operand.copy() for operand in everything]
            moved[place][index] += step
            above = loss(*moved)
            moved[place][index] -= 2 * step
            assert abs((above - loss(*moved)) / (2 * step) - gradient[index]) < 1e-7


@pytest.mark.parametrize("shape", [(5, 8), (3, 5, 8), (2, 3, 5, 8), (2, 1, 3, 5, 8)])
def test_any_number_of_leading_dimensions(shape):
    query, key, value = np.random.default_rng(0).standard_normal((3, *shape))
    output, lse = fw.scaled_dot_product_attention(query, key, value, return_lse=True)
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(8)
    powers = np.exp(scores)
    np.testing.assert_allclose(output, powers @ value / powers.sum(-1, keepdims=True))
    np.testing.assert_allclose(lse, np.log(powers.sum(-1)))
    gradients = scaled_dot_product_attention_backward(output, query, key, value, output, lse)
    assert [gradient.shape for gradient in gradients] == [shape] * 3


@pytest.mark.parametrize("shape", [(5, 7), (4, 1, 7), (3, 1, 1, 7), (2, 1, 4, 5, 1)])
def test_a_masks_gradient_has_the_masks_shape(shape):
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((2, 3, 4, n, 8)) for n in (5, 7, 7))
    mask = rng.standard_normal(shape)
    output, lse = fw.scaled_dot_product_attention(query, key, value, mask, return_lse=True)
    (gradient,) = scaled_dot_product_attention_backward(
        output, query, key, value, output, lse, mask, of=["attn_mask"]
    )
    assert gradient.shape == shape
    full = np.broadcast_to(mask, (2, 3, 4, 5, 7)).copy()
    (whole,) = scaled_dot_product_attention_backward(
        output, query, key, value, output, lse, full, of=["attn_mask"]
    )
    np.testing.assert_allclose(gradient, reference.summed_to(whole, shape), atol=1e-12)


def test_the_seed_decides_what_is_dropped():
    x = np.random.default_rng(0).standard_normal((2, 3, 130, 16)).astype(np.float32)
    threads = fw.get_num_threads()

    def drop(seed):
        return fw.scaled_dot_product_attention(x, x, x, dropout_p=0.4, seed=seed)

    try:
        first = drop(1)
        fw.set_num_threads(3)
        np.testing.assert_array_equal(drop(1), first)
    finally:
        fw.set_num_threads(threads)
    assert not np.array_equal(drop(2), first)
    assert not np.array_equal(drop(None), drop(None))
    with pytest.raises(ValueError, match="seed"):
        scaled_dot_product_attention_backward(x, x, x, x, x, x[..., 0], dropout_p=0.4)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_is_random_in_every_direction(probability):
    """Counts, and products of neighbours, stay within what chance gives them."""
    shape = (3, 4, 64, 500)
    places = np.ogrid[tuple(map(slice, shape))]
    lost = dropped(probability, np.asarray([[[[7]]]]), tuple(places[:3]), places[3])
    other = dropped(probability, np.asarray([[[[8]]]]), tuple(places[:3]), places[3])
    spread = np.sqrt(probability * (1 - probability))
    score = (lost - probability) / spread
    # Means of hundreds, whose distribution is near enough to the normal one.
    for axes in [(0, 1, 2, 3), (3,), (0, 1, 2), (2, 3), (0, 1, 3)]:
        means = score.mean(axes)
        count = score.size / means.size
        assert np.abs(means).max() < 5 / np.sqrt(count), axes
    pairs = [score * (other - probability) / spread]
    for axis in range(4):
        size = shape[axis]
        pairs.append(score.take(range(1, size), axis) * score.take(range(size - 1), axis))
    for product in pairs:
        assert abs(product.mean()) < 5 / np.sqrt(product.size)


def test_dropout_keeps_the_mean():
    query, key = np.zeros((2, 1, 64, 4))
    output = fw.scaled_dot_product_attention(query, key, np.ones((1, 64, 4)), dropout_p=0.25)
    assert 0.9 < output.mean() < 1.1
    assert output.std() > 0
    nothing = fw.scaled_dot_product_attention(query, key, key + 1, dropout_p=1.0)
    np.testing.assert_array_equal(nothing, 0)


def test_a_query_with_nothing_to_attend_to_has_its_sink():
    x, hidden = np.ones((1, 2, 4, 8)), np.zeros((4, 4), bool)
    output, lse = fw.scaled_dot_product_attention(x, x, x, hidden, return_lse=True)
    np.testing.assert_array_equal(output, 0)
    np.testing.assert_array_equal(lse, -np.inf)
    sinks = np.array([0.5, -np.inf])
    output, lse = fw.scaled_dot_product_attention(x, x, x, hidden, sinks=sinks, return_lse=True)
    np.testing.assert_array_equal(output, 0)
    np.testing.assert_array_equal(lse, np.broadcast_to(sinks[:, None], (1, 2, 4)))
    of = ["query", "key", "value", "sinks"]
    gradients = scaled_dot_product_attention_backward(
        x, x, x, x, output, lse, hidden, sinks=sinks, of=of
    )
    assert all(not gradient.any() for gradient in gradients)


ones = np.ones((1, 2, 4, 8), np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "words"),
    [
        ((ones, ones[..., :4], ones), {}, ValueError, ["key", "[1, 2, 4, 8]", "[1, 2, 4, 4]"]),
        ((ones, ones, ones[:, :, :3]), {}, ValueError, ["value", "[1, 2, 3, 8]"]),
        ((ones, ones[:, :1], ones[:, :1]), {}, ValueError, ["enable_gqa"]),
        ((ones, ones.astype(np.float64), ones), {}, TypeError, ["key", "float32", "float64"]),
        ((ones.astype(int), ones, ones), {}, TypeError, ["query", "float32"]),
        ((ones[0, 0, 0], ones, ones), {}, ValueError, ["query", "2 dimensions", "[8]"]),
        ((ones, [1], ones), {}, TypeError, ["key", "list"]),
        (([1], ones, ones), {}, TypeError, ["query", "list"]),
        ((ones, ones, ones, np.ones((3, 4), bool)), {}, ValueError, ["attn_mask", "3, 4]"]),
        ((ones, ones, ones, np.ones((4, 4), int)), {}, TypeError, ["attn_mask", "bool"]),
        ((ones, ones, ones), {"dropout_p": 1.5}, ValueError, ["dropout_p", "1.5"]),
        ((ones, ones, ones), {"softcap": 0}, ValueError, ["softcap", "0"]),
        ((ones, ones, ones), {"softcap": np.inf}, ValueError, ["softcap", "inf"]),
        ((ones, ones, ones), {"alibi_slopes": np.array(1.0)}, ValueError, ["alibi_slopes"]),
        ((ones, ones, ones), {"window": (3,)}, ValueError, ["window", "(3,)"]),
        ((ones, ones, ones), {"window": (3, -2)}, ValueError, ["window", "-2"]),
        ((ones, ones, ones), {"causal_alignment": "left"}, ValueError, ["bottom_right", "left"]),
        ((ones, ones, ones), {"sinks": np.ones(3)}, ValueError, ["sinks", "[1, 2]", "[1, 3]"]),
        ((ones, ones, ones), {"key_lengths": np.array([5])}, ValueError, ["key_lengths", "5"]),
        ((ones, ones, ones), {"key_lengths": np.ones(3, int)}, ValueError, ["key_lengths", "[3]"]),
        ((ones, ones, ones), {"query_lengths": np.ones(1)}, TypeError, ["query_lengths"]),
        ((ones, ones, ones), {"dropout_p": 0.1, "seed": 1.5}, ValueError, ["seed", "1.5"]),
        ((ones, ones, ones), {"dropout_p": 0.1, "seed": 2**64}, ValueError, ["seed", str(2**64)]),
        ((np.ma.array(ones), ones, ones), {}, TypeError, ["query", "plain array", "masked"]),
        ((ones, ones, np.ma.array(ones)), {}, TypeError, ["value", "plain array", "masked"]),
        ((ones, ones, ones, np.ma.ones((4, 4), bool)), {}, TypeError, ["attn_mask", "masked"]),
        ((ones, ones, ones), {"sinks": np.ma.ones(2)}, TypeError, ["sinks", "masked"]),
    ],
)
def test_bad_input_is_told(arguments, options, kind, words):
    with pytest.raises(kind) as raised:
        fw.scaled_dot_product_attention(*arguments, **options)
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize("leading", [(2,), (), (3, 2)])
def test_logarithms_of_another_shape_are_refused(leading):
    x = np.ones((*leading, 3, 5, 8))
    output, lse = fw.scaled_dot_product_attention(x, x, x, return_lse=True)
    assert lse.shape == (*leading, 3, 5)
    scaled_dot_product_attention_backward(x, x, x, x, output, lse, grad_lse=lse)
    for wrong in (lse.T, lse[..., :4], lse.reshape(-1)):
        with pytest.raises(ValueError, match=r"^lse must have shape .*3, 5\], but has"):
            scaled_dot_product_attention_backward(x, x, x, x, output, wrong)
        with pytest.raises(ValueError, match=r"^grad_lse must have shape .*3, 5\], but has"):
            scaled_dot_product_attention_backward(x, x, x, x, output, lse, grad_lse=wrong)
    with pytest.raises(TypeError, match="lse must be a NumPy array, but is list"):
        scaled_dot_product_attention_backward(x, x, x, x, output, lse.tolist())
    with pytest.raises(TypeError, match=r"as in \('query',\), but is 'query'"):
        scaled_dot_product_attention_backward(x, x, x, x, output, lse, of="query")


def test_a_mask_in_bfloat16_beside_operands_in_float32():
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 8)).astype(np.float32)
    mask = np.array([0, -1, 2, -np.inf, 0.5], bfloat16)[None]
    np.testing.assert_array_equal(
        fw.scaled_dot_product_attention(x, x, x, mask),
        fw.scaled_dot_product_attention(x, x, x, mask.astype(np.float32)),
    )
