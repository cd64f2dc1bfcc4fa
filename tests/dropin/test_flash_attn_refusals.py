"""What flash-attn's functions refuse, in the words of its arguments."""

import math

import pytest
import torch

from fusewire.dropin import flash_attn


def test_a_full_cache_is_told():
    cache, new = torch.zeros(1, 4, 2, 8), torch.zeros(1, 2, 2, 8)
    with pytest.raises(ValueError, match="room for 4 keys, but 5"):
        flash_attn.flash_attn_with_kvcache(new, cache, cache, new, new, cache_seqlens=3)
    with pytest.raises(ValueError, match="need values and cache_seqlens"):
        flash_attn.flash_attn_with_kvcache(new, cache, cache, new, cache_seqlens=0)
    table = torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"a rotation needs .* new keys"):
        flash_attn.flash_attn_with_kvcache(new, cache, cache, rotary_cos=table, rotary_sin=table)


def test_operands_are_checked():
    q, k = torch.zeros(2, 5, 4, 8), torch.zeros(2, 6, 2, 8)
    rows, ends = torch.zeros(5, 2, 8), torch.tensor([0, 5])
    new, table = torch.zeros(2, 1, 2, 8), torch.ones(2, 4)
    cached = flash_attn.flash_attn_with_kvcache
    wrong = {
        r"q must be \(batch, length, heads, dim\), but": lambda: flash_attn.flash_attn_func(
            rows, k, k
        ),
        "k must be float32 like q, but is float64": lambda: flash_attn.flash_attn_func(
            q, k.double(), k
        ),
        "k must be a PyTorch tensor, but is list": lambda: flash_attn.flash_attn_func(q, [1], k),
        "one batch size, but have 2, 1, 1": lambda: flash_attn.flash_attn_func(q, k[:1], k[:1]),
        "window_size must be a pair": lambda: flash_attn.flash_attn_func(q, k, k, window_size=3),
        r"qkv must be \(batch, length, 3,": lambda: flash_attn.flash_attn_qkvpacked_func(q),
        r"kv must be \(batch, key_len, 2,": lambda: flash_attn.flash_attn_kvpacked_func(
            q, torch.zeros(2, 6, 3, 2, 8)
        ),
        r"v must be \(total, heads, head_dim\)": lambda: flash_attn.flash_attn_varlen_func(
            rows, rows, rows[None], ends, ends, 5, 5
        ),
        "q must be of a floating type": lambda: flash_attn.flash_attn_func(q.int(), k, k),
        r"a pair of whole numbers, but is \(None, None\)": lambda: flash_attn.flash_attn_func(
            q, k, k, window_size=(None, None)
        ),
        "softcap must be a number, but is None": lambda: flash_attn.flash_attn_func(
            q, k, k, softcap=None
        ),
        "softcap must be finite": lambda: flash_attn.flash_attn_func(q, k, k, softcap=math.inf),
        "softmax_scale must be a number, but is 'x'": lambda: flash_attn.flash_attn_func(
            q, k, k, softmax_scale="x"
        ),
        r"alibi_slopes must have shape \[4\] or \[2, 4\], but": lambda: flash_attn.flash_attn_func(
            q, k, k, alibi_slopes=torch.ones(3)
        ),
        "alibi_slopes must be a PyTorch tensor, but is list": lambda: flash_attn.flash_attn_func(
            q, k, k, alibi_slopes=[1.0]
        ),
        "k must have head_dim 8 like q, but has 4": lambda: flash_attn.flash_attn_func(
            q, k[..., :4], k
        ),
        "v must have the shape of k but for": lambda: flash_attn.flash_attn_func(q, k, k[:, 1:]),
        "a multiple of those of k, but there are 4 and 3": lambda: flash_attn.flash_attn_func(
            q, torch.zeros(2, 6, 3, 8), torch.zeros(2, 6, 3, 8)
        ),
        "cu_seqlens_q must be a PyTorch tensor": lambda: flash_attn.flash_attn_varlen_func(
            rows, rows, rows, [0, 5], ends, 5, 5
        ),
        "cache_seqlens must be 2 whole numbers": lambda: cached(
            q, k, k, cache_seqlens=torch.tensor([1.0, 2.0])
        ),
        r"k must have shape \[2, 1, 2, 8\], but has \[2, 1, 2, 6\]": lambda: cached(
            q, k, k, new[..., :6], new[..., :6], cache_seqlens=1
        ),
        "a row for each place up to 3, but have 2": lambda: cached(
            q, k, k, new, new, table, table, cache_seqlens=3
        ),
    }
    for words, call in wrong.items():
        with pytest.raises((TypeError, ValueError), match=words):
            call()


@pytest.mark.parametrize(
    ("starts", "words"),
    [
        (torch.tensor([0, 4, 3, 7]), "must rise from 0 to 7, but"),
        (torch.tensor([0, 3, 6]), "must rise from 0 to 7, but"),
        (torch.tensor([1, 3, 7]), "must rise from 0 to 7, but"),
        (torch.tensor([0.0, 3.0, 7.0]), "must be whole numbers, but are torch.float32"),
        (torch.tensor([[0, 3, 7]]), r"must be \(batch \+ 1\), but has shape \[1, 3\]"),
        (None, "must be a PyTorch tensor, but is NoneType"),
    ],
)
def test_starts_are_told_by_the_names_that_flash_attn_has_for_them(starts, words):
    q, ends = torch.zeros(7, 2, 8), torch.tensor([0, 3, 7])
    both = {"cu_seqlens_q": ends, "cu_seqlens_k": ends}
    for name in both:
        given = {**both, name: starts}
        with pytest.raises((TypeError, ValueError), match=f"^{name} {words}"):
            flash_attn.flash_attn_varlen_func(q, q, q, **given, max_seqlen_q=4, max_seqlen_k=4)
        with pytest.raises((TypeError, ValueError), match=f"^{name} {words}"):
            flash_attn.flash_attn_varlen_kvpacked_func(
                q, torch.stack([q, q], 1), **given, max_seqlen_q=4, max_seqlen_k=4
            )
    with pytest.raises((TypeError, ValueError), match=f"^cu_seqlens {words}"):
        flash_attn.flash_attn_varlen_qkvpacked_func(torch.stack([q, q, q], 1), starts, 4)


def test_starts_of_other_numbers_of_sequences():
    q, starts = torch.zeros(7, 2, 8), torch.tensor([0, 3, 7])
    with pytest.raises(ValueError, match=r"^cu_seqlens_q must have shape \[4\], but has \[3\]"):
        flash_attn.flash_attn_varlen_func(q, q, q, starts, torch.tensor([0, 3, 5, 7]), 4, 4)
    with pytest.raises(TypeError, match=r"^qkv must be of a floating type, but is torch\.int32"):
        flash_attn.flash_attn_varlen_qkvpacked_func(
            q.int()[:, None].expand(-1, 3, -1, -1), starts, 4
        )


def test_pages_are_checked():
    store, q = torch.randn(6, 4, 2, 8), torch.randn(2, 4, 8)
    ends = torch.tensor([0, 1, 2]), torch.tensor([0, 5, 13])
    table = torch.tensor([[0, 1, 99], [5, 2, -1]], dtype=torch.int32)
    wrong = {
        r"block_table\[1, 0\] must lie between 0 and 5, but is 6": table + (table == 5),
        r"block_table\[0, 1\] must lie between 0 and 5, but is -1": table - 2 * (table == 1),
        "block_table must have 2 rows, but has 1": table[:1],
        "room for 4 keys of each sequence, but cu_seqlens_k has one of 8": table[:, :1],
        r"block_table must be \(batch, pages of the longest\)": table[0],
        "block_table must be whole numbers": table.float(),
        "block_table must be a PyTorch tensor, but is list": table.tolist(),
    }
    for words, given in wrong.items():
        with pytest.raises((TypeError, ValueError), match=words):
            flash_attn.flash_attn_varlen_func(q, store, store, *ends, 1, 8, block_table=given)


@pytest.mark.parametrize("count", [1, 9], ids=["few", "many"])
def test_a_cache_stays_as_it_is_where_a_call_is_refused(count):
    rows, store = torch.zeros(3, 16, 2, 8), torch.zeros(6, 4, 2, 8)
    q, new = torch.ones(2, count, 4, 8), torch.ones(2, count, 2, 8)
    places, table = torch.tensor([2, 0]), torch.tensor([[0, 1, 2, 3], [4, 9, 5, -1]])
    in_rows = {"cache_batch_idx": places, "cache_seqlens": 3, "k": new, "v": new}
    in_pages = {"block_table": table, "cache_seqlens": torch.tensor([4, 6]), "k": new, "v": new}
    turns = torch.ones(16, 4)
    wrong = {
        "k_cache must have 2 rows like q": {**in_rows, "cache_batch_idx": None},
        r"cache_batch_idx\[1\] .* 0 and 2, but is 5": {
            **in_rows,
            "cache_batch_idx": torch.tensor([0, 5]),
        },
        r"cache_batch_idx\[0\] .* 0 and 2, but is -1": {
            **in_rows,
            "cache_batch_idx": torch.tensor([-1, 0]),
        },
        "cache_batch_idx must be 2 whole numbers": {**in_rows, "cache_batch_idx": places[:1]},
        "cache_batch_idx says nothing": {**in_pages, "cache_batch_idx": places},
        r"cache_leftpad\[0\] .* 0 and 3, but is -1": {
            **in_rows,
            "cache_leftpad": torch.tensor([-1, 0]),
        },
        r"cache_leftpad\[1\] .* 0 and 3, but is 5": {
            **in_rows,
            "cache_leftpad": torch.tensor([0, 5]),
        },
        "cache_leftpad must be 2 whole numbers": {**in_rows, "cache_leftpad": torch.tensor([1])},
        "cache_leftpad must be a PyTorch tensor": {**in_rows, "cache_leftpad": [1, 0]},
        "new keys need values and .*, and values keys": {**in_rows, "k": None},
        r"cache_seqlens\[0\] .* 0 and 16, but is -2": {**in_rows, "cache_seqlens": -2},
        r"a whole number or a PyTorch tensor, but is \[2, 3\]": {
            **in_rows,
            "cache_seqlens": [2, 3],
        },
        r"block_table\[1, 1\] must lie between 0 and 5, but is 9": in_pages,
        "k must be float32 like q, but is float64": {**in_rows, "k": new.double()},
        r"v must have shape .*, but has \[2, \d, 2, 4\]": {**in_rows, "v": new[..., :4]},
        "alibi_slopes must have shape": {**in_rows, "alibi_slopes": torch.ones(3)},
        "window_size must be": {**in_rows, "window_size": (1.5, 0)},
        "a multiple of those of k_cache, but there are 3 and 2": {**in_rows, "q": q[:, :, :3]},
        "at most 4 columns for a head_dim of 8, but has 5": {
            **in_rows,
            "rotary_cos": torch.ones(16, 5),
            "rotary_sin": torch.ones(16, 5),
        },
        r"rotary_sin must have the shape .* \[16, 3\] and \[16, 4\]": {
            **in_rows,
            "rotary_cos": turns,
            "rotary_sin": turns[:, :3],
        },
    }
    for words, options in wrong.items():
        cache = store if "block_table" in options else rows
        with pytest.raises((TypeError, ValueError), match=words):
            flash_attn.flash_attn_with_kvcache(
                **{"q": q, "k_cache": cache, "v_cache": cache, **options}
            )
    assert not rows.any()
    assert not store.any()
