"""Packed sequences: each as if it were alone, with every option and every gradient."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import fusewire as fw
from fusewire.ops.attention import scaled_dot_product_attention_backward, varlen_attention_backward


def offsets(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@st.composite
def calls(draw):
    """The operands of a packed call, and its keyword arguments."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sequences, kv_heads, group = (draw(st.integers(1, 4)) for _ in range(3))
    heads, head_dim, value_dim = (
        kv_heads * group,
        draw(st.integers(1, 20)),
        draw(st.integers(1, 20)),
    )
    query_lengths = draw(st.lists(st.integers(0, 90), min_size=sequences, max_size=sequences))
    key_lengths = draw(st.lists(st.integers(0, 150), min_size=sequences, max_size=sequences))
    operands = (
        rng.standard_normal((sum(query_lengths), heads, head_dim)),
        rng.standard_normal((sum(key_lengths), kv_heads, head_dim)),
        rng.standard_normal((sum(key_lengths), kv_heads, value_dim)),
    )
    options = {
        "enable_gqa": True,
        "is_causal": draw(st.booleans()),
        "causal_alignment": draw(st.sampled_from(["top_left", "bottom_right"])),
        "softcap": draw(st.sampled_from([None, 1.5])),
        "window": draw(st.sampled_from([None, (7, 30)])),
    }
    added = {}
    if draw(st.booleans()):
        added["alibi_slopes"] = rng.random((sequences, heads))
    if draw(st.booleans()):
        added["sinks"] = rng.standard_normal((sequences, heads))
    if draw(st.booleans()):
        shape = (sequences, heads, max(query_lengths), max(key_lengths))
        added["attn_mask"] = rng.standard_normal(shape)
    return operands, offsets(query_lengths), offsets(key_lengths), options, added


@settings(max_examples=60, deadline=None)
@given(calls())
def test_every_sequence_is_as_if_it_were_alone(call):
    operands, query_offsets, key_offsets, options, added = call
    both = (query_offsets, key_offsets)
    output, lse = fw.varlen_attention(*operands, *both, return_lse=True, **options, **added)
    rng = np.random.default_rng(0)
    grad_output, grad_lse = rng.standard_normal(output.shape), rng.standard_normal(lse.shape)
    of = ["query", "key", "value", *added]
    gradients = varlen_attention_backward(
        grad_output, *operands, output, lse, *both, grad_lse=grad_lse, of=of, **options, **added
    )
    packed = dict(zip(of, gradients, strict=True))
    for sequence in range(len(query_offsets) - 1):
        queries = slice(*query_offsets[sequence : sequence + 2])
        keys = slice(*key_offsets[sequence : sequence + 2])
        alone = [
            operand[rows].transpose(1, 0, 2)
            for operand, rows in zip(operands, (queries, keys, keys), strict=True)
        ]
        own = {name: numbers[sequence] for name, numbers in added.items()}
        sizes = alone[0].shape[1], alone[1].shape[1]
        if "attn_mask" in own:
            own["attn_mask"] = own["attn_mask"][:, : sizes[0], : sizes[1]]
        one, one_lse = fw.scaled_dot_product_attention(*alone, return_lse=True, **options, **own)
        # A few queries of many keys, alone, take the kernel for caches, which sums otherwise.
        close = partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-13)
        same = close if sizes[0] <= 8 and sizes[1] >= 128 else np.testing.assert_array_equal
        same(output[queries].transpose(1, 0, 2), one)
        same(lse[:, queries], one_lse)
        true = scaled_dot_product_attention_backward(
            grad_output[queries].transpose(1, 0, 2),
            *alone,
            one,
            one_lse,
            grad_lse=grad_lse[:, queries],
            of=of,
            **options,
            **own,
        )
        for name, gradient in zip(of, true, strict=True):
            mine = packed[name]
            if name in ("query", "key", "value"):
                mine = mine[queries if name == "query" else keys].transpose(1, 0, 2)
            elif name == "attn_mask":
                mine = mine[sequence, :, : sizes[0], : sizes[1]]
            else:
                mine = mine[sequence]
            np.testing.assert_allclose(mine, gradient, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
def test_gradients_of_both_orders(dropout_p):
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 2, 3), (8, 1, 3), (8, 1, 2), (2,), (3, 2), (4, 5)]
    sources = [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]
    query_offsets, key_offsets = torch.tensor([0, 2, 2, 6]), torch.tensor([0, 3, 4, 8])

    def call(query, key, value, slopes, sinks, mask):
        return fw.varlen_attention(
            query,
            key,
            value,
            query_offsets,
            key_offsets.int(),
            mask[:, :4],
            dropout_p,
            enable_gqa=True,
            softcap=2.0,
            alibi_slopes=slopes,
            sinks=sinks,
            seed=4,
            return_lse=True,
        )

    assert torch.autograd.gradcheck(call, sources)
    assert torch.autograd.gradgradcheck(call, sources)


def test_tensors_and_arrays_agree():
    query = np.random.default_rng(0).standard_normal((9, 2, 4)).astype(np.float32)
    starts = offsets([4, 0, 5])
    array = fw.varlen_attention(query, query, query, starts, starts, is_causal=True)
    tensor = fw.varlen_attention(
        *[torch.tensor(query)] * 3, *[torch.tensor(starts)] * 2, is_causal=True
    )
    np.testing.assert_array_equal(tensor.numpy(), array)


ones, starts = np.ones((4, 2, 8), np.float32), np.array([0, 1, 4])


@pytest.mark.parametrize("kind_of_array", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((ones, ones, ones, np.array([0, 1]), starts), ["query_offsets", "4", "[0, 1]"]),
        ((ones, ones, ones, starts, np.array([0, 5, 4])), ["key_offsets[1]", "5"]),
        ((ones, ones, ones, starts, np.array([0, 4])), ["query_offsets", "[2]", "[3]"]),
        ((ones, ones, ones, starts, np.array([1, 2, 4])), ["key_offsets", "[1, 2, 4]"]),
        ((ones[None], ones, ones, starts, starts), ["query", "3 dimensions", "[1, 4, 2, 8]"]),
        ((ones, ones, ones[:3], starts, starts), ["value"]),
        ((ones, ones, ones, starts, starts, ones[:2, 0, :3]), ["attn_mask", "[2, 2, 3, 3]"]),
    ],
)
def test_bad_input_is_told(kind_of_array, arguments, words):
    arguments = [kind_of_array(argument) for argument in arguments]
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the words are looked at below
        fw.varlen_attention(*arguments)
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_told_to_be_packed():
    rows = [torch.randn(length, 2, 8) for length in (3, 5)]
    nested = torch.nested.nested_tensor(rows, layout=torch.jagged)
    heads_first = nested.transpose(1, 2)
    with pytest.raises(TypeError, match=r"query must be dense, but is nested; fw\.varlen_att"):
        fw.scaled_dot_product_attention(heads_first, heads_first, heads_first)
    values, ends = nested.values(), nested.offsets()
    output = fw.varlen_attention(values, values, values, ends, ends)
    own = functional.scaled_dot_product_attention(heads_first, heads_first, heads_first)
    torch.testing.assert_close(output, own.transpose(1, 2).values())
