"""The tensors of attention, checked and brought into the shapes and types that kernels take."""

from __future__ import annotations

import math

import torch

from fusewire.ops import dispatcher


def told(dtype: torch.dtype) -> str:
    """A type as messages name it."""
    return str(dtype).removeprefix("torch.")


def check_types(**operands: torch.Tensor) -> None:
    """Raises a TypeError where operands are not dense, of a stored type, and of one type.

    PyTorch's own operators would compute with some mixtures of types, and refuse others.
    """
    error = wrong_type("", **operands)
    if error is not None:
        raise error


def wrong_type(advice: str, **operands: torch.Tensor) -> TypeError | None:
    """What is wrong with the kinds and types of operands.

    Args:
        advice: Told behind the types, what to do about an operand of another type than the first.
        operands: By name.
    """
    first = next(iter(operands))
    wanted = operands[first].dtype
    for name, operand in operands.items():
        if operand.is_nested:
            return TypeError(
                f"{name} must be dense, but is nested; fw.varlen_attention takes the values and "
                "the offsets of nested tensors"
            )
        if operand.layout is not torch.strided:
            layout = str(operand.layout).removeprefix("torch.")
            return TypeError(f"{name} must be dense, but is {layout}")
        if operand.dtype not in dispatcher.STORED:
            expected = "float32, float64, bfloat16 or float16"
            return TypeError(f"{name} must be {expected}, but is {told(operand.dtype)}")
        if operand.dtype != wanted:
            types = f"{told(wanted)} like {first}, but is {told(operand.dtype)}"
            return TypeError(f"{name} must be {types}{advice}")
    return None


def leading(*operands: torch.Tensor) -> torch.Size:
    """The dimensions before heads that all operands are broadcast to."""
    leads = [operand.shape[:-3] for operand in operands]
    if leads[0] == leads[1] == leads[2]:
        return leads[0]
    try:
        together: torch.Size = torch.broadcast_shapes(*leads)  # type: ignore[no-untyped-call]
    except RuntimeError:
        shapes = ", ".join(str(list(operand.shape)) for operand in operands)
        raise ValueError(
            f"query, key and value must be alike before their heads, but have shapes {shapes}"
        ) from None
    return together


def with_one_batch(operand: torch.Tensor, name: str, lead: torch.Size) -> torch.Tensor:
    """``(..., heads, length, dim)`` as ``(batch, heads, length, dim)``."""
    if operand.dim() == 4 and operand.shape[:1] == lead:
        return operand
    if operand.dim() < 2:
        raise ValueError(
            f"{name} must have at least 2 dimensions, but has shape {list(operand.shape)}"
        )
    if operand.dim() == 2:
        operand = operand.unsqueeze(0)
    operand = operand.expand(*lead, *operand.shape[-3:])
    return operand.flatten(0, -4) if lead else operand.unsqueeze(0)


def packed(operand: torch.Tensor, name: str) -> torch.Tensor:
    """``(length, heads, dim)``."""
    if operand.dim() != 3:
        raise ValueError(f"{name} must have 3 dimensions, but has shape {list(operand.shape)}")
    return operand


def needs_single(mask: torch.Tensor, stored: torch.dtype) -> bool:
    """Whether a mask holds numbers that operands stored as `stored` would round.

    They are added in float32 then, as PyTorch adds them: what is lost may be a finite number that
    hides a key where all are hidden alike.
    """
    return (
        mask.dtype not in (stored, torch.bool)
        and stored not in dispatcher.REAL
        and mask.is_floating_point()
    )


def bias(
    mask: torch.Tensor | None, lead: torch.Size | None, query: torch.Tensor, key: torch.Tensor
) -> torch.Tensor | None:
    """The mask of operands with one batch dimension, or packed ones, with four dimensions.

    Any of these may be 1.
    """
    if mask is None:
        return None
    if mask.dtype != torch.bool:
        if not mask.is_floating_point():
            raise TypeError(f"attn_mask must be bool or floating, but is {mask.dtype}")
        mask = _narrowed(mask, query.dtype)
    if lead is not None and mask.dim() > 3 and len(lead) != 1:
        try:
            whole = mask.expand(*lead, *mask.shape[-3:])
        except RuntimeError:
            scores = [*lead, *query.shape[1:3], key.shape[2]]
            raise ValueError(
                f"attn_mask must be broadcastable to {scores}, but has shape {list(mask.shape)}"
            ) from None
        return whole.reshape(math.prod(lead), *mask.shape[-3:])
    return mask if mask.dim() == 4 else mask[(None,) * (4 - mask.dim())]


def _narrowed(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The mask as `dtype`, whose largest number stands for finite ones that are larger."""
    narrowed = mask.to(dtype)
    if mask.dtype == torch.float64 and dtype != torch.float64:
        most = torch.finfo(dtype).max
        # Unseen by autograd, because the gradient is that of the number which was given.
        with torch.no_grad():
            narrowed.copy_(torch.where(mask.isinf(), mask, mask.clamp(-most, most)))
    return narrowed


def per_head(numbers: torch.Tensor | None, name: str, dtype: torch.dtype) -> torch.Tensor | None:
    """``(heads)`` or ``(batch, heads)`` with two dimensions."""
    if numbers is None:
        return None
    if numbers.is_complex():
        raise TypeError(f"{name} must be real numbers, but are {told(numbers.dtype)}")
    if numbers.dim() == 0:
        raise ValueError(f"{name} must have a number for each head, but is one number")
    numbers = numbers.to(dtype)
    return numbers.unsqueeze(0) if numbers.dim() == 1 else numbers.flatten(0, -2)


def whole(numbers: torch.Tensor | None, name: str) -> torch.Tensor | None:
    """Lengths or offsets as the kernels read them."""
    if numbers is None or (numbers.dtype == torch.int64 and numbers.dim() == 1):
        return numbers
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        raise TypeError(f"{name} must be whole numbers, but are {numbers.dtype}")
    return numbers.to(torch.int64).flatten()
