"""Whether the operands of attention fit together: what kernels look at, for what runs elsewhere.

The words are the kernels' own. Shapes are always compared; the values of lengths only where they
lie in memory that can be read without waiting.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from fusewire.ops import dispatcher
from fusewire.ops.attention.options import Options

if TYPE_CHECKING:
    from fusewire.ops.attention.composed import Extras


def check(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    extras: Extras,
    options: Options,
) -> None:
    """Raises a ValueError where padded operands, or packed ones without offsets, do not fit."""
    shapes: list[tuple[int, ...]] = [tuple(operand.shape) for operand in (query, key, value)]
    if options.packed:
        shapes = [(1, heads, length, dim) for length, heads, dim in shapes]
    batch, heads, query_len, head_dim = shapes[0]
    kv_heads, key_len = shapes[1][1:3]
    _expect("key", shapes[1], (batch, kv_heads, key_len, head_dim))
    _expect("value", shapes[2], (batch, kv_heads, key_len, shapes[2][3]))
    if heads % kv_heads if kv_heads else heads:
        raise ValueError(
            "the heads of query must be a multiple of those of key and value, "
            f"but there are {heads} and {kv_heads}"
        )
    if extras.seed is not None and extras.seed.dim() != 0:
        raise ValueError(f"seed must have 0 dimensions, but has shape {list(extras.seed.shape)}")
    if not options.packed:
        check_added(extras, (batch, heads, query_len, key_len))
        _check_lengths("query_lengths", extras.query_lengths, batch, query_len)
        _check_lengths("key_lengths", extras.key_lengths, batch, key_len)


def check_added(extras: Extras, scores: tuple[int, int, int, int]) -> None:
    """Raises a ValueError where something is not broadcastable to the scores of all sequences."""
    mask = extras.attn_mask
    if mask is not None and mask.dim() != 4:
        raise ValueError(f"attn_mask must have 4 dimensions, but has shape {list(mask.shape)}")
    wanted = {"alibi_slopes": scores[:2], "sinks": scores[:2], "attn_mask": scores}
    for name, shape in wanted.items():
        numbers = getattr(extras, name)
        if numbers is not None and any(
            size not in (1, whole) for size, whole in zip(numbers.shape, shape, strict=True)
        ):
            raise ValueError(
                f"{name} must be broadcastable to {list(shape)}, "
                f"but has shape {list(numbers.shape)}"
            )


def starts_of(extras: Extras, queries: int, keys: int) -> tuple[list[int], list[int]]:
    """Where the queries and the keys of packed sequences begin, and where the last ones end.

    Raises:
        ValueError: If offsets are missing, do not rise from 0 to these totals, or tell of
            different numbers of sequences.
    """
    query_starts = _starts("query_offsets", extras.query_lengths, queries)
    key_starts = _starts("key_offsets", extras.key_lengths, keys)
    _expect("query_offsets", (len(query_starts),), (len(key_starts),))
    return query_starts, key_starts


def longest(starts: Sequence[int]) -> int:
    """The length of the longest of packed sequences."""
    return max((end - start for start, end in pairwise(starts)), default=0)


def _starts(name: str, offsets: torch.Tensor | None, total: int) -> list[int]:
    if offsets is None:
        raise ValueError(f"{name} must be given")
    starts: list[int] = offsets.tolist()
    least = 0
    for place, start in enumerate(starts):
        if not least <= start <= total:
            raise ValueError(f"{name} must rise from 0 to {total}, but {name}[{place}] is {start}")
        least = start
    if not starts or (starts[0], starts[-1]) != (0, total):
        got = f"are {starts}" if starts else "are empty"
        raise ValueError(f"{name} must rise from 0 to {total}, but {got}")
    return starts


def _expect(name: str, shape: Sequence[int], wanted: Sequence[int]) -> None:
    if tuple(shape) != tuple(wanted):
        raise ValueError(f"{name} must have shape {list(wanted)}, but has {list(shape)}")


def _check_lengths(name: str, lengths: torch.Tensor | None, batch: int, most: int) -> None:
    if lengths is None:
        return
    _expect(name, lengths.shape, (batch,))
    if not _is_readable(lengths):
        return
    for row, length in enumerate(lengths.tolist()):
        if not 0 <= length <= most:
            raise ValueError(f"{name}[{row}] must lie between 0 and {most}, but is {length}")


def _is_readable(numbers: torch.Tensor) -> bool:
    """Whether values lie in the CPU's memory, and are not those of a batch that `vmap` hides."""
    if dispatcher.is_compiling() or not numbers.is_cpu or type(numbers) not in dispatcher.PLAIN:
        return False
    while torch._C._functorch.is_gradtrackingtensor(numbers):
        numbers = torch._C._functorch.get_unwrapped(numbers)
    return not torch._C._functorch.is_batchedtensor(numbers)
