"""flash-attn's functions against what its documentation says, in plain float64."""

import itertools

import pytest
import torch

from fusewire.dropin import flash_attn


def reference(q, k, v, causal=False, window=(-1, -1), softcap=0.0, slopes=None, scale=None):
    """One sequence: (query_len, heads, dim) against (key_len, kv_heads, dim)."""
    q, k, v = q.double(), k.double(), v.double()
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(len(k)) - torch.arange(len(q))[:, None] - (len(k) - len(q))
    if slopes is not None:
        scores = scores - slopes.double()[:, None, None] * distance.abs()
    left, right = window[0], 0 if causal else window[1]
    hidden = torch.zeros_like(distance, dtype=torch.bool)
    if left >= 0:
        hidden |= distance < -left
    if right >= 0:
        hidden |= distance > right
    scores = scores.masked_fill(hidden, -torch.inf)
    weights = scores.softmax(-1).nan_to_num(0)
    lse = scores.logsumexp(-1)
    return torch.einsum("hqk,khd->qhd", weights, v), lse.masked_fill(lse == -torch.inf, torch.inf)


def close(actual, expected):
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=3e-6)


OPTIONS = [
    {},
    {"causal": True},
    {"window": (2, 1)},
    {"causal": True, "window": (3, 0)},
    {"softcap": 2.0},
    {"slopes": torch.tensor([0.5, 0.25, 0.1, 0.05])},
    {"scale": 0.2, "causal": True},
]


def named(options):
    """The options under flash-attn's names."""
    names = {"window": "window_size", "slopes": "alibi_slopes", "scale": "softmax_scale"}
    return {names.get(name, name): value for name, value in options.items()}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("lengths", [(5, 5), (3, 7), (7, 3)])
def test_batches(options, lengths):
    query_len, key_len = lengths
    q = torch.randn(2, query_len, 4, 8, requires_grad=True)
    k, v = torch.randn(2, 2, key_len, 2, 8, requires_grad=True).unbind(0)
    output, lse, probabilities = flash_attn.flash_attn_func(
        q, k, v, return_attn_probs=True, **named(options)
    )
    assert probabilities.numel() == 0
    assert output.is_contiguous()
    assert torch.equal(flash_attn.flash_attn_func(q, k, v, **named(options)), output)
    expected = [reference(*operands, **options) for operands in zip(q, k, v, strict=True)]
    close(output, torch.stack([each for each, _ in expected]))
    close(lse, torch.stack([each for _, each in expected]))
    upstream = torch.randn_like(output)
    gradients = torch.autograd.grad(output, (q, k, v), upstream)
    wanted = torch.stack([each for each, _ in expected])
    for actual, exact in zip(
        gradients, torch.autograd.grad(wanted, (q, k, v), upstream.double()), strict=True
    ):
        close(actual, exact.double())


def test_packed_forms_are_the_same():
    qkv = torch.randn(2, 6, 3, 4, 8)
    q, k, v = qkv.unbind(2)
    expected = flash_attn.flash_attn_func(q, k, v, causal=True)
    assert torch.equal(flash_attn.flash_attn_qkvpacked_func(qkv, causal=True), expected)
    kv = torch.stack([k, v], 2)
    assert torch.equal(flash_attn.flash_attn_kvpacked_func(q, kv, causal=True), expected)
    rows = qkv.flatten(0, 1)
    starts = torch.tensor([0, 6, 12], dtype=torch.int32)
    varlen = flash_attn.flash_attn_varlen_qkvpacked_func(rows, starts, 6, causal=True)
    torch.testing.assert_close(varlen, expected.flatten(0, 1))
    varlen = flash_attn.flash_attn_varlen_kvpacked_func(
        rows[:, 0], rows[:, 1:], starts, starts, 6, 6, causal=True
    )
    torch.testing.assert_close(varlen, expected.flatten(0, 1))


def offsets(lengths):
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_sequences_behind_each_other(options):
    query_lengths, key_lengths = [3, 0, 5, 1], [4, 2, 5, 0]
    q = torch.randn(sum(query_lengths), 4, 8, requires_grad=True)
    k = torch.randn(sum(key_lengths), 2, 8, requires_grad=True)
    v = torch.randn(sum(key_lengths), 2, 8, requires_grad=True)
    starts = offsets(query_lengths), offsets(key_lengths)
    output, lse, _ = flash_attn.flash_attn_varlen_func(
        q, k, v, *starts, 5, 5, return_attn_probs=True, **named(options)
    )
    parts = zip(q.split(query_lengths), k.split(key_lengths), v.split(key_lengths), strict=True)
    expected = [reference(*part, **options) for part in parts]
    exact = torch.cat([each for each, _ in expected])
    close(output, exact)
    close(lse, torch.cat([each for _, each in expected], 1))
    upstream = torch.randn_like(output)
    for actual, wanted in zip(
        torch.autograd.grad(output, (q, k, v), upstream),
        torch.autograd.grad(exact, (q, k, v), upstream.double()),
        strict=True,
    ):
        close(actual, wanted.double())


def pages(rows, page_len):
    """Rows of a cache in shuffled pages, and the table of them."""
    batch, room = rows.shape[:2]
    count = room // page_len
    order = torch.randperm(batch * count, generator=torch.Generator().manual_seed(0))
    store = torch.empty(batch * count, page_len, *rows.shape[2:])
    store[order] = rows.reshape(batch * count, page_len, *rows.shape[2:])
    return store, order.reshape(batch, count).int()


def test_sequences_in_pages():
    k = torch.randn(2, 12, 2, 8)
    store, table = pages(k, 4)
    table[:, 2] = torch.tensor([-1, 99])  # Beyond the lengths, so without a meaning.
    q, starts = torch.randn(5, 4, 8), (offsets([2, 3]), offsets([5, 8]))
    output = flash_attn.flash_attn_varlen_func(
        q, store, store, *starts, 3, 8, causal=True, block_table=table
    )
    close(output[:2], reference(q[:2], k[0, :5], k[0, :5], causal=True)[0])
    close(output[2:], reference(q[2:], k[1, :8], k[1, :8], causal=True)[0])


def rotated(x, cos, sin, first, interleaved, moves=True):
    """(length, heads, dim), one row at a time, by complex numbers."""
    half = cos.shape[-1]
    angles = torch.complex(cos.double(), sin.double())
    result = x.double().clone()
    for place in range(len(x)):
        turn = angles[first + place * moves]
        part = x[place, :, : 2 * half].double()
        pairs = part.reshape(-1, half, 2) if interleaved else part.reshape(-1, 2, half).mT
        turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * turn)
        turned = turned if interleaved else turned.mT
        result[place, :, : 2 * half] = turned.reshape(-1, 2 * half)
    return result


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("rotary", [None, False, True])
@pytest.mark.parametrize("count", [2, 11], ids=["few", "many"])
@pytest.mark.parametrize("options", [{"causal": True}, {"causal": True, "window": (3, 0)}, {}])
def test_caches(paged, rotary, count, options):
    held = [5, 0, 9]
    cache_k, cache_v = torch.randn(3, 20, 2, 8), torch.randn(3, 20, 2, 8)
    q = torch.randn(3, count, 4, 8)
    k, v = torch.randn(3, count, 2, 8), torch.randn(3, count, 2, 8)
    angles = torch.arange(20)[:, None] * torch.tensor([1.0, 0.3, 0.05])
    store_k, store_v, table = cache_k.clone(), cache_v.clone(), None
    if paged:
        (store_k, table), (store_v, _) = pages(cache_k, 4), pages(cache_v, 4)
    extra = {}
    if rotary is not None:
        extra = {
            "rotary_cos": angles.cos(),
            "rotary_sin": angles.sin(),
            "rotary_interleaved": rotary,
        }
    output, lse = flash_attn.flash_attn_with_kvcache(
        q,
        store_k,
        store_v,
        k,
        v,
        cache_seqlens=torch.tensor(held, dtype=torch.int32),
        block_table=table,
        return_softmax_lse=True,
        **extra,
        **named(options),
    )
    assert output.is_contiguous()
    if paged:
        store_k, store_v = (x[table.long()].flatten(1, 2) for x in (store_k, store_v))
    for row, length in enumerate(held):
        queries, new = q[row], k[row]
        if rotary is not None:
            new = rotated(new, angles.cos(), angles.sin(), length, rotary)
            moves = "causal" in options
            queries = rotated(queries, angles.cos(), angles.sin(), length, rotary, moves)
        keys = torch.cat([cache_k[row, :length].double(), new.double()])
        values = torch.cat([cache_v[row, :length], v[row]])
        exact, exact_lse = reference(queries, keys, values, **options)
        close(output[row], exact)
        close(lse[row], exact_lse)
        close(store_k[row, : length + count], keys)
        assert torch.equal(store_v[row, : length + count], values)
        assert torch.equal(store_v[row, length + count :], cache_v[row, length + count :])


def test_rows_elsewhere_in_the_cache_and_padding_on_the_left():
    cache = torch.randn(5, 6, 2, 8)
    places, first = torch.tensor([4, 1]), torch.tensor([2, 0])
    q = torch.randn(2, 1, 4, 8)
    lengths = torch.tensor([6, 3])
    output = flash_attn.flash_attn_with_kvcache(
        q, cache, cache, cache_seqlens=lengths, cache_batch_idx=places, cache_leftpad=first
    )
    close(output[0], reference(q[0], cache[4, 2:6], cache[4, 2:6])[0])
    close(output[1], reference(q[1], cache[1, :3], cache[1, :3])[0])
    whole = flash_attn.flash_attn_with_kvcache(q, cache[:2], cache[:2])
    close(whole[0], reference(q[0], cache[0], cache[0])[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    q = torch.randn(1, 5, 2, 8).to(dtype)
    output = flash_attn.flash_attn_func(q, q, q, causal=True)
    assert output.dtype == dtype
    exact, _ = reference(q[0], q[0], q[0], causal=True)
    torch.testing.assert_close(output[0].double(), exact, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"softcap": 2.0},
        {"window": (2, 2)},
        {"scale": 0.3},
        {"slopes": torch.rand(3, 4, generator=torch.Generator().manual_seed(0)), "causal": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_caches_with_what_scores_can_have(options, paged):
    cache, lengths = torch.randn(3, 12, 2, 8), torch.tensor([5, 12, 1], dtype=torch.int32)
    q = torch.randn(3, 1, 4, 8)
    store, table = pages(cache, 4) if paged else (cache, None)
    output, lse = flash_attn.flash_attn_with_kvcache(
        q,
        store,
        store,
        cache_seqlens=lengths,
        block_table=table,
        num_splits=2,
        return_softmax_lse=True,
        **named(options),
    )
    for row, length in enumerate(lengths):
        own = {name: x[row] if name == "slopes" else x for name, x in options.items()}
        held = cache[row, :length]
        exact, exact_lse = reference(q[row], held, held, **own)
        close(output[row], exact)
        close(lse[row], exact_lse)


def test_new_keys_of_rows_elsewhere_in_the_cache():
    keys, values = torch.randn(2, 6, 12, 2, 8)
    q, (k, v) = torch.randn(3, 2, 4, 8), torch.randn(2, 3, 2, 2, 8)
    lengths, places = torch.tensor([5, 3, 9]), torch.tensor([4, 0, 2])
    expected = [
        reference(
            q[row],
            torch.cat([keys[place, :held], k[row]]),
            torch.cat([values[place, :held], v[row]]),
            causal=True,
        )[0]
        for row, (held, place) in enumerate(zip(lengths, places, strict=True))
    ]
    output = flash_attn.flash_attn_with_kvcache(
        q, keys, values, k, v, cache_seqlens=lengths, cache_batch_idx=places, causal=True
    )
    close(output, torch.stack(expected))
    assert torch.equal(keys[4, 5:7], k[0])


def test_slopes_of_each_row_of_the_batch():
    q, k, slopes = torch.randn(3, 5, 4, 8), torch.randn(3, 7, 2, 8), torch.rand(3, 4)
    options = {"window": (2, 1), "softcap": 3.0}
    output = flash_attn.flash_attn_func(
        q, k, k, alibi_slopes=slopes, deterministic=True, **named(options)
    )
    rows = zip(q, k, slopes, strict=True)
    expected = [reference(a, b, b, slopes=slope, **options)[0] for a, b, slope in rows]
    close(output, torch.stack(expected))
