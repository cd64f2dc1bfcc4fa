"""Where a run computes, and what it says when that place has no room."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fusewire.errors import InputError

_WORDS_OF_THE_ALLOCATOR = ("can't allocate memory", "Storage size calculation overflowed")


def require_device(name: str) -> None:
    """Refuses a device that this machine cannot use.

    Args:
        name: as PyTorch calls it, such as "cpu" or "cuda".

    Raises:
        InputError: PyTorch does not know the device or cannot use it here.
    """
    try:
        # Read back, because the device "meta" makes tensors without values.
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as failure:
        # PyTorch goes on with a list of everything it was built with.
        reason = str(failure).splitlines()[0].split(". ")[0].rstrip(".")
        raise InputError(f'device "{name}" cannot be used: {reason}; "cpu" always can') from failure


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Sets the CPU threads of PyTorch, and of our kernels with them, for the time of a block.

    Args:
        count: at least 1; None leaves them as they are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def memory_refusals() -> Iterator[None]:
    """Makes a refusal of memory, from NumPy or PyTorch, an error that says what to do.

    Raises:
        InputError: the block asked for more memory than there is.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as failure:
        raise _too_large(failure) from failure
    except RuntimeError as failure:
        # On the CPU, PyTorch has no type of its own for these.
        if not any(words in str(failure) for words in _WORDS_OF_THE_ALLOCATOR):
            raise
        raise _too_large(failure) from failure


def _too_large(failure: Exception) -> InputError:
    reason = str(failure).splitlines()[0] if str(failure) else "the machine has no more"
    return InputError(f"not enough memory for so large a batch, context, count or model: {reason}")
