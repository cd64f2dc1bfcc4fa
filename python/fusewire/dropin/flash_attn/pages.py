"""Tables that say in which pages of a pool the keys and values of each sequence lie."""

from __future__ import annotations

import torch

from fusewire.dropin.flash_attn.padded import check

WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_within(name: str, numbers: torch.Tensor, most: torch.Tensor | int) -> None:
    """Raises if one of ``(batch)`` numbers is negative or greater than `most`."""
    if not _can_be_seen(numbers):
        return
    bounds = most.tolist() if isinstance(most, torch.Tensor) else [most] * len(numbers)
    for row, (number, bound) in enumerate(zip(numbers.tolist(), bounds, strict=True)):
        if not 0 <= number <= bound:
            raise _outside(name, [row], bound, number)


def _can_be_seen(numbers: torch.Tensor) -> bool:
    """Whether one may look at numbers without waiting for a device or breaking a graph."""
    return numbers.is_cpu and not torch.compiler.is_compiling()


def _outside(name: str, place: list[int], most: int, number: int) -> ValueError:
    return ValueError(f"{name}{place} must lie between 0 and {most}, but is {number}")


def check_table(table: torch.Tensor, batch: int) -> None:
    """Raises if a table is none of `batch` rows."""
    check("(batch, pages of the longest)", block_table=table)
    if table.dtype not in WHOLE:
        raise TypeError(f"block_table must be whole numbers, but is {table.dtype}")
    if len(table) != batch:
        raise ValueError(f"block_table must have {batch} rows, but has {len(table)}")


def known_pages(table: torch.Tensor, lengths: torch.Tensor, pages: torch.Tensor) -> torch.Tensor:
    """The table with pages that exist; what it says beyond a row's length means nothing."""
    if _can_be_seen(table):
        first = torch.arange(table.shape[1]) * pages.shape[1]
        unknown = (first < lengths[:, None]) & ((table < 0) | (table >= len(pages)))
        if unknown.any():
            row, column = unknown.nonzero()[0].tolist()
            number = int(table[row, column])
            raise _outside("block_table", [row, column], len(pages) - 1, number)
    return table.long().clamp(0, len(pages) - 1)
