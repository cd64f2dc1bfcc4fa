"""A few queries against a cache, contiguous and in blocks, against the definition in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fusewire as fw

PRECISION = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def numbers(*shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def defined(
    query, key, value, lengths, *, causal=False, window=(-1, -1), softcap=None, slopes=None
):
    """Output and logarithms in float64, keys ``(batch, kv_heads, key_len, head_dim)``."""
    group = query.shape[1] // key.shape[1]
    query, key, value = query.double(), key.double(), value.double()
    key, value = (cache.repeat_interleave(group, dim=1) for cache in (key, value))
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    keys = torch.arange(key.shape[2])
    diagonal = lengths[:, None] - query.shape[2] + torch.arange(query.shape[2])
    distance = (keys - diagonal[..., None])[:, None]
    if slopes is not None:
        scores = scores - slopes.double()[:, None, None] * distance.abs()
    left, right = window[0], 0 if causal else window[1]
    hidden = (keys >= lengths[:, None])[:, None, None].expand(distance.shape)
    if left >= 0:
        hidden = hidden | (distance < -left)
    if right >= 0:
        hidden = hidden | (distance > right)
    scores = scores.masked_fill(hidden, float("-inf"))
    lse = scores.logsumexp(-1)
    weights = torch.exp(scores - lse[..., None]).nan_to_num(0.0)
    return weights @ value, lse


def in_blocks(cache, block_size, order):
    """A pool whose blocks lie in another order, and the table that finds them."""
    batch, kv_heads, key_len, dim = cache.shape
    count = -(-key_len // block_size)
    padded = cache.new_zeros(batch, kv_heads, count * block_size, dim)
    padded[:, :, :key_len] = cache
    blocks = padded.reshape(batch, kv_heads, count, block_size, dim).permute(0, 2, 3, 1, 4)
    pool = torch.empty(batch * count, block_size, kv_heads, dim, dtype=cache.dtype)
    pool[order] = blocks.reshape(pool.shape)
    return pool, order.reshape(batch, count).int()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9)),
    dims=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    key_len=st.integers(1, 150),
    block_size=st.sampled_from([1, 16, 33]),
    window=st.tuples(st.integers(-1, 40), st.integers(-1, 5)),
    causal=st.booleans(),
    softcap=st.sampled_from([None, 2.0]),
    tilted=st.booleans(),
    dtype=st.sampled_from(list(PRECISION)),
    arrays=st.booleans(),
    seed=st.integers(0, 99),
)
def test_blocks_and_rows(
    sizes, dims, key_len, block_size, window, causal, softcap, tilted, dtype, arrays, seed
):
    batch, kv_heads, group, query_len = sizes
    heads = kv_heads * group
    query = numbers(batch, query_len, heads, dims[0], dtype=dtype, seed=seed).transpose(1, 2)
    key = numbers(batch, kv_heads, key_len, dims[0], dtype=dtype, seed=seed + 1)
    value = numbers(batch, kv_heads, key_len, dims[1], dtype=dtype, seed=seed + 2)
    real = dtype if dtype == torch.float64 else torch.float32
    slopes = numbers(heads, dtype=real, seed=seed).abs() if tilted else None
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, key_len + 1, (batch,), generator=generator)
    order = torch.randperm(batch * -(-key_len // block_size), generator=generator)
    pools = [in_blocks(cache, block_size, order) for cache in (key, value)]
    operands = [query, pools[0][0], pools[1][0], pools[0][1], lengths]
    given_slopes = slopes
    if arrays and dtype in (torch.float32, torch.float64, torch.float16):
        operands = [operand.numpy() for operand in operands]
        given_slopes = None if slopes is None else slopes.numpy()
    options = {"softcap": softcap, "window": window}
    output, lse = fw.paged_attention(
        *operands, is_causal=causal, alibi_slopes=given_slopes, return_lse=True, **options
    )
    expected = defined(query, key, value, lengths, causal=causal, slopes=slopes, **options)
    bound = PRECISION[dtype] * max(1.0, float(value.double().abs().max()))
    for got, truth in zip((output, lse), expected, strict=True):
        torch.testing.assert_close(
            torch.as_tensor(got).double(), truth, atol=4 * bound, rtol=PRECISION[dtype]
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_queries_take_this_path_by_themselves(dtype):
    query = numbers(2, 4, 1, 64, dtype=dtype)
    key = numbers(2, 300, 2, 64, dtype=dtype, seed=1).transpose(1, 2)
    value = numbers(2, 300, 2, 64, dtype=dtype, seed=2).transpose(1, 2)
    lengths = torch.tensor([300, 17])
    output, lse = fw.scaled_dot_product_attention(
        query, key, value, enable_gqa=True, key_lengths=lengths, return_lse=True
    )
    expected, expected_lse = defined(query, key, value, lengths)
    assert output.dtype == dtype
    assert lse.dtype == torch.float32
    bound = 2 * PRECISION[dtype]
    torch.testing.assert_close(output.double(), expected, atol=bound, rtol=bound)
    torch.testing.assert_close(lse.double(), expected_lse, atol=1e-5, rtol=1e-5)


def test_the_number_of_threads_changes_no_bit():
    before = torch.get_num_threads()
    query, cache = numbers(1, 8, 1, 64, dtype=torch.float32), torch.randn(1, 2, 5000, 64)
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(fw.scaled_dot_product_attention(query, cache, cache, enable_gqa=True))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_a_cache_without_numbers():
    table, lengths = np.zeros((2, 0), np.int32), np.zeros(2, np.int64)
    for pool, heads in [((0, 16, 2, 8), 4), ((3, 16, 0, 8), 0), ((3, 0, 2, 8), 4)]:
        cache = np.zeros(pool, np.float32)
        query = np.ones((2, heads, 1, 8), np.float32)
        output = fw.paged_attention(query, cache, cache, table, lengths)
        np.testing.assert_array_equal(output, np.zeros_like(query))


def test_not_a_number_goes_through():
    cache = torch.zeros(1, 1, 40, 8)
    cache[0, 0, 33, 2] = torch.nan
    output = fw.scaled_dot_product_attention(torch.ones(1, 1, 1, 8), cache, cache)
    assert output.isnan().all()


BLOCKS = np.zeros((4, 16, 1, 8), np.float32)
TABLE = np.array([[0, 3]], np.int32)


@pytest.mark.parametrize(
    ("error", "words", "change"),
    [
        (ValueError, r"block_table\[0, 1\] must lie between 0 and 3", {3: TABLE + 1}),
        (ValueError, r"key_lengths\[0\] must lie between 0 and 32", {4: np.array([33])}),
        (ValueError, "key_lengths must have shape", {4: np.array([3, 3])}),
        (ValueError, "head_dim 4", {0: np.zeros((1, 1, 1, 4), np.float32)}),
        (ValueError, "block_table must have 2 rows", {0: np.zeros((2, 1, 1, 8), np.float32),
                                                      4: np.array([3, 3])}),
        (TypeError, "block_table must be int32", {3: TABLE.astype(np.int64)}),
        (TypeError, "key_blocks must be float32 like query, but", {1: BLOCKS.astype(np.float64)}),
    ],
)  # fmt: skip
def test_bad_input_is_told(error, words, change):
    operands = [np.zeros((1, 1, 1, 8), np.float32), BLOCKS, BLOCKS, TABLE, np.array([20])]
    for place, operand in change.items():
        operands[place] = operand
    with pytest.raises(error, match=words):
        fw.paged_attention(*operands)


def gradients_of(scores, lse, query, key, value, upstream):
    """Gradients of query, key and value, where scores and logarithms are these."""
    powers = (scores - lse).exp()
    products = upstream @ value.mT
    slopes = powers * (products - (powers * products).sum(-1, keepdim=True))
    scale = query.shape[-1] ** -0.5
    return slopes @ key * scale, slopes.mT @ query * scale, powers.mT @ upstream


@pytest.mark.parametrize("query_len", [1, 2, 3])
def test_gradients_of_few_queries_whose_scores_are_large(query_len):
    """Decoded forward, by tiles backward: both must be of the same scores.

    Then errors are what is left where scores and logarithms alone are rounded to float32, be
    PyTorch's larger or smaller on this CPU.
    """
    ratios = []
    for seed in range(8):
        query = 10 * numbers(2, 3, query_len, 80, dtype=torch.float32, seed=seed)
        key = numbers(2, 3, 332, 80, dtype=torch.float32, seed=seed + 100)
        value = numbers(2, 3, 332, 80, dtype=torch.float32, seed=seed + 200)
        upstream = numbers(2, 3, query_len, 80, dtype=torch.float32, seed=seed + 300)
        operands = [operand.requires_grad_() for operand in (query, key, value)]
        output = fw.scaled_dot_product_attention(*operands)
        found = torch.autograd.grad(output, operands, upstream)
        exact = [operand.detach().double() for operand in (*operands, upstream)]
        scores = exact[0] @ exact[1].mT * 80**-0.5
        lse = scores.logsumexp(-1, keepdim=True)
        truths = gradients_of(scores, lse, *exact)
        rounded = gradients_of(scores.float().double(), lse.float().double(), *exact)
        errors, floors = (
            [
                float((each.double() - truth).norm())
                for each, truth in zip(given, truths, strict=True)
            ]
            for given in (found, rounded)
        )
        ratios.append(np.log(errors) - np.log(floors))
    assert (np.exp(np.mean(ratios, axis=0)) < 1.5).all()


def on_tensors(**changes):
    """A call of paged attention on tensors, of which some are others."""
    operands = {
        "query": torch.ones(1, 2, 1, 8),
        "key_blocks": torch.ones(4, 16, 1, 8),
        "value_blocks": torch.ones(4, 16, 1, 8),
        "block_table": torch.tensor(TABLE),
        "key_lengths": torch.tensor([20]),
    }
    return fw.paged_attention(**{**operands, **changes})


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("name", ["query", "key_blocks", "value_blocks", "sinks", "alibi_slopes"])
def test_gradients_are_refused(name):
    shapes = {"query": (1, 2, 1, 8), "sinks": (2,), "alibi_slopes": (2,)}
    leaf = torch.ones(shapes.get(name, (4, 16, 1, 8)), requires_grad=True)
    with pytest.raises(ValueError, match=r"has no gradients, .* under torch\.no_grad"):
        on_tensors(**{name: leaf})
    with pytest.raises(ValueError, match="has no gradients"):
        torch.func.grad(lambda x: on_tensors(**{name: x}).sum())(leaf.detach())
    with pytest.raises(ValueError, match="has no gradients"):
        torch.func.jvp(lambda x: on_tensors(**{name: x}), (leaf.detach(),), (leaf.detach(),))
    with torch.no_grad():
        assert not on_tensors(**{name: leaf}).requires_grad


def test_types_of_queries_and_caches():
    half = torch.ones(1, 2, 1, 8, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match=r"key_blocks must be bfloat16 like query, .* convert"):
        on_tensors(query=half)
    with torch.autocast("cpu", torch.bfloat16):
        assert on_tensors().dtype == torch.bfloat16
        assert on_tensors(query=half).dtype == torch.bfloat16


@pytest.mark.parametrize("lengths", [np.array([2.5]), np.array([True]), None])
def test_lengths_that_are_no_whole_numbers(lengths):
    arrays = [np.zeros((1, 1, 1, 8), np.float32), BLOCKS, BLOCKS, TABLE]
    with pytest.raises(TypeError, match="key_lengths must be"):
        fw.paged_attention(*arrays, lengths)
    with pytest.raises(TypeError, match="key_lengths must be"):
        on_tensors(key_lengths=lengths if lengths is None else torch.as_tensor(lengths))
