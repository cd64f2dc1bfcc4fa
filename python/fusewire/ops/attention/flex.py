"""Attention by PyTorch's FlexAttention, on GPUs: every feature but dropout, without the scores.

Windows, lengths, softcap, ALiBi, masks, packed sequences and logarithms are compiled into its
kernel, which takes seconds for the first call of each kind. So only what would be large as a matrix
of scores comes here; the rest is composed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch._functorch import config as functorch
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

from fusewire.ops import dispatcher
from fusewire.ops.attention import fit
from fusewire.ops.attention.composed import Extras
from fusewire.ops.attention.options import NO_CAP, UNBOUNDED, Options

_SMALLEST_DIM = 16
"""Of heads, in Triton's products."""

_LARGE = 1 << 24
"""Scores from which on they are not held: 64 MB, which take a GPU longer than a kernel's start."""

_KINDS = 64
"""Kernels for different features, types and strides that one process may compile."""

_Index = Any
"""A tensor without dimensions while FlexAttention traces what it compiles."""

_Place = Callable[[_Index, _Index, _Index], tuple[_Index, _Index, _Index, _Index]]
"""From indices of batch, query and key: the sequence, both places in it, and how far the key lies
behind the query's place on the diagonal."""


def is_served(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float) -> bool:
    """Whether a call shall go to FlexAttention; operands are padded or packed."""
    keys = key.shape[0] if key.dim() == 3 else key.shape[2]
    return (
        query.is_cuda
        and query.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and min(query.shape[-1], value.shape[-1]) >= _SMALLEST_DIM
        and dropout == 0
        and query.shape[:-1].numel() * keys >= _LARGE
        and not dispatcher.is_transformed()
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *others: torch.Tensor | None,
    options: Options,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`fusewire.ops.attention.composed.attention`; without dropout."""
    extras = Extras(*others)
    if options.packed:
        query, key, value = (rows.transpose(0, 1)[None] for rows in (query, key, value))
        place, owners = _packed(query, key, options, extras)
    else:
        place, owners = _padded(query, key, options, extras), None
    visible = _visible(place, owners, options, extras, query.device)
    score = _score(place, options, extras, query.device)
    block_mask = None
    if visible is not None:
        mask = extras.attn_mask
        by_head = mask is not None and mask.dtype == torch.bool and mask.shape[1] > 1
        block_mask = _compiled(create_block_mask)(
            visible,
            None if options.packed else query.shape[0],
            query.shape[1] if by_head else None,
            query.shape[2],
            key.shape[2],
            query.device,
        )
    output, auxiliary = _compiled(flex_attention)(
        query,
        key,
        value,
        score,
        block_mask,
        options.scale,
        query.shape[1] != key.shape[1],
        return_aux=AuxRequest(lse=True),
    )
    lse = auxiliary.lse
    if extras.sinks is not None:
        # One more key, whose value is 0, takes its share of each probability.
        rows = extras.sinks.expand(-1, query.shape[1])
        sink = rows[:, :, None]
        if owners is not None and rows.shape[0] > 1:
            sink = rows[owners[0]].T[None]
        seen, lse = lse, torch.logaddexp(lse, sink)
        output = (output * (seen - lse).exp().unsqueeze(-1)).to(query.dtype)
    if options.packed:
        return output[0].transpose(0, 1), lse[0]
    return output, lse


def _padded(query: torch.Tensor, key: torch.Tensor, options: Options, extras: Extras) -> _Place:
    diagonal = torch.zeros(query.shape[0], dtype=torch.int64, device=query.device)
    if options.bottom_right:
        queries, keys = extras.query_lengths, extras.key_lengths
        diagonal = diagonal + (key.shape[2] if keys is None else keys)
        diagonal = diagonal - (query.shape[2] if queries is None else queries)

    def place(b: _Index, q: _Index, k: _Index) -> tuple[_Index, _Index, _Index, _Index]:
        return b, q, k, k - q - diagonal[b]

    return place


def _packed(
    query: torch.Tensor, key: torch.Tensor, options: Options, extras: Extras
) -> tuple[_Place, tuple[torch.Tensor, torch.Tensor]]:
    """The places, and the sequence of each query and of each key."""
    starts = fit.starts_of(extras, query.shape[2], key.shape[2])
    lengths = fit.longest(starts[0]), fit.longest(starts[1])
    fit.check_added(extras, (len(starts[0]) - 1, query.shape[1], *lengths))
    queries, keys = extras.query_lengths, extras.key_lengths
    assert queries is not None
    assert keys is not None
    query_owners, key_owners = (
        torch.searchsorted(
            offsets[1:].contiguous(), torch.arange(total, device=query.device), right=True
        )
        for offsets, total in ((queries, query.shape[2]), (keys, key.shape[2]))
    )
    diagonal = keys.diff() - queries.diff()
    if not options.bottom_right:
        diagonal = torch.zeros_like(diagonal)

    def place(_: _Index, q: _Index, k: _Index) -> tuple[_Index, _Index, _Index, _Index]:
        sequence = query_owners[q]
        i, j = q - queries[sequence], k - keys[sequence]
        return sequence, i, j, j - i - diagonal[sequence]

    return place, (query_owners, key_owners)


def _visible(
    place: _Place,
    owners: tuple[torch.Tensor, torch.Tensor] | None,
    options: Options,
    extras: Extras,
    device: torch.device,
) -> Callable[[_Index, _Index, _Index, _Index], _Index] | None:
    """What FlexAttention asks for each score: whether the query attends; None if always."""
    mask = extras.attn_mask
    bools = mask if mask is not None and mask.dtype == torch.bool else None
    lengths = (None, None) if options.packed else (extras.query_lengths, extras.key_lengths)
    if options.is_full and owners is None and bools is None and lengths == (None, None):
        return None
    left = _number(options.left, UNBOUNDED, device)
    right = _number(options.right, UNBOUNDED, device)

    def visible(b: _Index, h: _Index, q: _Index, k: _Index) -> _Index:
        sequence, i, j, distance = place(b, q, k)
        seen = q >= 0
        if owners is not None:
            seen = seen & (owners[0][q] == owners[1][k])
        if left is not None:
            seen = seen & (distance >= -left)
        if right is not None:
            seen = seen & (distance <= right)
        if lengths[0] is not None:
            seen = seen & (i < lengths[0][sequence])
        if lengths[1] is not None:
            seen = seen & (j < lengths[1][sequence])
        if bools is not None:
            seen = seen & _at(bools, sequence, h, i, j)
        return seen

    return visible


def _score(
    place: _Place, options: Options, extras: Extras, device: torch.device
) -> Callable[[_Index, _Index, _Index, _Index, _Index], _Index] | None:
    """What FlexAttention makes of each scaled product; None where it stays what it is."""
    slopes, mask = extras.alibi_slopes, extras.attn_mask
    bias = mask if mask is not None and mask.dtype != torch.bool else None
    cap = _number(options.softcap, NO_CAP, device)
    if cap is None and slopes is None and bias is None:
        return None

    def score(score: _Index, b: _Index, h: _Index, q: _Index, k: _Index) -> _Index:
        sequence, i, j, distance = place(b, q, k)
        if cap is not None:
            score = cap * torch.tanh(score / cap)
        if slopes is not None:
            score = score - _at(slopes, sequence, h) * distance.abs()
        if bias is not None:
            score = score + _at(bias, sequence, h, i, j)
        return score

    return score


def _number(value: float, missing: float, device: torch.device) -> torch.Tensor | None:
    """A number as a tensor, for one in Python would be compiled into the kernel; or None."""
    return None if value == missing else torch.full((), value, device=device)


def _at(numbers: torch.Tensor, *indices: _Index) -> _Index:
    """A number of a tensor that is broadcast where it has the size 1.

    Queries and keys of different sequences have places too; those may lie outside.
    """
    sizes = zip(indices, numbers.shape, strict=True)
    return numbers[tuple(index.clamp(0, size - 1) for index, size in sizes)]


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled for what it is called with, unless a compiler is at work already."""
    if dispatcher.is_compiling():
        return function

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        # What a backward pass may overwrite is gone when whoever kept the graph comes again.
        kept = functorch.patch(donated_buffer=False)
        with torch._dynamo.config.patch(recompile_limit=_KINDS), kept:
            return _compile(function)(*arguments, **options)

    return run


@functools.cache
def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function)
