"""Attention on NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusewire import _native
from fusewire.ops.attention.options import Options, check_heads
from fusewire.ops.attention.reference import Extras, summed_to
from fusewire.ops.door import check_array, check_seed, is_floating

Array = NDArray[Any]

_PRODUCTS = ("query", "key", "value")
_ADDED = ("attn_mask", "alibi_slopes", "sinks")
_BACKWARD_OF_ADDED = (
    _native.attention_backward_mask,
    _native.attention_backward_slopes,
    _native.attention_backward_sinks,
)


def attention(
    query: Array,
    key: Array,
    value: Array,
    options: Options,
    enable_gqa: bool,
    extras: Extras,
    return_lse: bool,
) -> Array | tuple[Array, Array]:
    """See :func:`fusewire.scaled_dot_product_attention` and :func:`fusewire.varlen_attention`."""
    if options.dropout_p and extras.seed is None:
        extras = extras._replace(seed=as_seed(int(np.random.default_rng().integers(2**63))))
    lead = None if options.packed else _leading(query, key, value)
    operands, prepared = _prepare((query, key, value), lead, enable_gqa, extras, options)
    output, lse = _native.attention((*operands, *prepared), options)
    output = output.astype(query.dtype, copy=False)
    if lead is not None:
        rows = _rows(query, operands[0], lead)
        output = output.reshape(*rows, value.shape[-1])
        lse = lse.reshape(rows)
    return (output, lse) if return_lse else output


def attention_backward(
    results: tuple[Array, Array | None, Array, Array],
    operands: tuple[Array, Array, Array],
    options: Options,
    enable_gqa: bool,
    extras: Extras,
    of: Sequence[str],
) -> tuple[Array, ...]:
    """The gradients that `of` names, given those of output and logarithms and both of these."""
    if options.dropout_p and extras.seed is None:
        raise ValueError("seed must be the one of the forward call where dropout_p is not 0")
    if isinstance(of, str):
        raise TypeError(f"of must be a tuple of names, as in ({of!r},), but is {of!r}")
    given: dict[str, Array | None] = dict(zip(_PRODUCTS, operands, strict=True))
    given |= zip(_ADDED, extras, strict=False)
    for name in of:
        operand = given.get(name)
        if operand is None or np.asarray(operand).dtype == bool:
            raise ValueError(f"there is no floating operand {name!r} to compute the gradient of")
    lead = None if options.packed else _leading(*operands)
    arrays, prepared = _prepare(operands, lead, enable_gqa, extras, options)
    grad_output, grad_lse, output, lse = results
    if arrays[0].dtype != operands[0].dtype:
        grad_output, output = (
            _single(array, name, operands[0].dtype)
            for array, name in ((grad_output, "grad_output"), (output, "output"))
        )
    if lead is not None:
        rows = _rows(operands[0], arrays[0], lead)
        grad_output = _with_one_batch(grad_output, "grad_output", lead)
        output = _with_one_batch(output, "output", lead)
        lse = _as_rows(lse, "lse", rows, arrays[0])
        grad_lse = None if grad_lse is None else _as_rows(grad_lse, "grad_lse", rows, arrays[0])
    native = (grad_output, grad_lse, output, lse), (*arrays, *prepared), options
    found: dict[str, Array] = {}
    if not set(_PRODUCTS).isdisjoint(of):
        query, key, value = _PRODUCTS
        wanted = query in of, key in of, value in of
        gradients = zip(
            _PRODUCTS, _native.attention_backward(*native, wanted), operands, strict=True
        )
        for name, array, like in gradients:
            if name in of:
                whole = array if lead is None else _as_given(array, like.shape, lead)
                found[name] = whole.astype(like.dtype, copy=False)
    for name, backward, added in zip(_ADDED, _BACKWARD_OF_ADDED, prepared[:3], strict=True):
        if name in of and added is not None:
            operand, gradient = np.asarray(given[name]), backward(*native)
            if name == "attn_mask":
                gradient = _as_given(gradient, operand.shape, lead)
            else:
                # Batches of numbers of heads come with one dimension already.
                gradient = summed_to(gradient, added.shape).reshape(operand.shape)
            found[name] = gradient.astype(operand.dtype, copy=False)
    return tuple(found[name] for name in of)


def _as_given(gradient: Array, shape: tuple[int, ...], lead: tuple[int, ...] | None) -> Array:
    """The gradient of what had `shape` before it was broadcast."""
    if lead is not None and len(lead) > 1:
        # What was not repeated along the batch is as if it had been.
        lead = lead if gradient.shape[0] == math.prod(lead) else (1,) * len(lead)
        gradient = gradient.reshape(*lead, *gradient.shape[1:])
    return summed_to(gradient, shape)


def _prepare(
    operands: tuple[Array, Array, Array],
    lead: tuple[int, ...] | None,
    enable_gqa: bool,
    extras: Extras,
    options: Options,
) -> tuple[tuple[Array, Array, Array], Extras]:
    """The operands as the kernels take them: with exactly one batch dimension, or packed."""
    query, key, value = (
        _packed(operand, name) if lead is None else _with_one_batch(operand, name, lead)
        for operand, name in zip(operands, _PRODUCTS, strict=True)
    )
    check_heads(query.shape[1], key.shape[1], enable_gqa)
    mask = extras.attn_mask
    if mask is not None and _needs_single(check_array(mask, "attn_mask").dtype, query.dtype):
        key, value = (
            _single(operand, name, query.dtype)
            for operand, name in ((key, "key"), (value, "value"))
        )
        query = query.astype(np.float32)
    # What kernels compute with.
    real = np.dtype(np.float32) if query.dtype.itemsize == 2 else query.dtype
    names = ("query_offsets", "key_offsets") if options.packed else Extras._fields[3:5]
    return (query, key, value), Extras(
        _mask(mask, lead, query, key),
        per_head(extras.alibi_slopes, "alibi_slopes", real),
        per_head(extras.sinks, "sinks", real),
        whole(extras.query_lengths, names[0]),
        whole(extras.key_lengths, names[1]),
        extras.seed if options.dropout_p else None,
    )


def _checked(array: Array, name: str, least: int) -> Array:
    array = check_array(array, name)
    if array.ndim < least:
        raise ValueError(
            f"{name} must have at least {least} dimensions, but has shape {list(array.shape)}"
        )
    return array


def _leading(*operands: Array) -> tuple[int, ...]:
    """The dimensions before heads that all operands are broadcast to."""
    shapes = [np.shape(operand) for operand in operands]
    try:
        return np.broadcast_shapes(*(shape[:-3] for shape in shapes))
    except ValueError:
        named = ", ".join(str(list(shape)) for shape in shapes)
        raise ValueError(
            f"query, key and value must be alike before their heads, but have shapes {named}"
        ) from None


def _with_one_batch(array: Array, name: str, lead: tuple[int, ...]) -> Array:
    """``(..., heads, length, dim)`` as ``(batch, heads, length, dim)``."""
    array = _checked(array, name, 2)
    if array.ndim == 2:
        array = array[None]
    inner = array.shape[-3:]
    return np.broadcast_to(array, (*lead, *inner)).reshape(math.prod(lead), *inner)


def _rows(query: Array, with_one_batch: Array, lead: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the logarithms: a number for each query."""
    return lead + with_one_batch.shape[1:3] if lead else query.shape[:-1]


def _as_rows(numbers: Array, name: str, rows: tuple[int, ...], query: Array) -> Array:
    """A number for each query, with exactly one batch dimension."""
    if check_array(numbers, name).shape != rows:
        raise ValueError(f"{name} must have shape {list(rows)}, but has {list(numbers.shape)}")
    return numbers.reshape(query.shape[:-1])


def _packed(array: Array, name: str) -> Array:
    """``(length, heads, dim)``."""
    if _checked(array, name, 3).ndim > 3:
        raise ValueError(f"{name} must have 3 dimensions, but has shape {list(array.shape)}")
    return array


def _needs_single(mask: np.dtype[Any], stored: np.dtype[Any]) -> bool:
    """Whether a mask holds numbers that operands stored as `stored` would round.

    They are added in float32 then, as PyTorch adds them.
    """
    return mask != stored and stored.itemsize == 2 and is_floating(stored) and is_floating(mask)


def _single(array: Array, name: str, stored: np.dtype[Any]) -> Array:
    """What is stored as `stored`, in float32."""
    if check_array(array, name).dtype != stored:
        raise TypeError(f"{name} must be {stored} like query, but is {array.dtype}")
    return array.astype(np.float32)


def _mask(
    mask: Array | None, lead: tuple[int, ...] | None, query: Array, key: Array
) -> Array | None:
    """The mask with four dimensions, of which any may be 1."""
    if mask is None:
        return None
    mask = check_array(mask, "attn_mask")
    if mask.dtype != bool:
        if mask.dtype != query.dtype and not is_floating(mask.dtype):
            raise TypeError(f"attn_mask must be bool or floating, but is {mask.dtype}")
        mask = _narrowed(mask, query.dtype)
    if lead is not None and mask.ndim > 3 and len(lead) != 1:
        try:
            whole = np.broadcast_to(mask, (*lead, *mask.shape[-3:]))
        except ValueError:
            scores = [*lead, *query.shape[1:3], key.shape[2]]
            raise ValueError(
                f"attn_mask must be broadcastable to {scores}, but has shape {list(mask.shape)}"
            ) from None
        return whole.reshape(math.prod(lead), *mask.shape[-3:])
    return mask.reshape((1,) * (4 - mask.ndim) + mask.shape)


def _narrowed(mask: Array, dtype: np.dtype[Any]) -> Array:
    """The mask as `dtype`, whose largest number stands for finite ones that are larger."""
    if mask.dtype.itemsize > dtype.itemsize and is_floating(dtype):
        most = np.finfo(dtype).max
        mask = np.where(np.isinf(mask), mask, np.clip(mask, -most, most))
    return mask.astype(dtype, copy=False)


def per_head(numbers: Array | None, name: str, dtype: np.dtype[Any]) -> Array | None:
    """``(heads)`` or ``(batch, heads)`` with two dimensions."""
    if numbers is None:
        return None
    if isinstance(numbers, np.ndarray):
        check_array(numbers, name)
    numbers = np.asarray(numbers)
    if numbers.dtype.kind not in "biuf" and not is_floating(numbers.dtype):
        raise TypeError(f"{name} must be real numbers, but are {numbers.dtype}")
    if numbers.ndim == 0:
        raise ValueError(f"{name} must have a number for each head, but is one number")
    heads = numbers.shape[-1]
    return numbers.astype(dtype, copy=False).reshape(math.prod(numbers.shape[:-1]), heads)


def as_seed(seed: int | None) -> Array | None:
    """The seed of dropout as an array, where it is given."""
    if seed is None:
        return None
    check_seed(seed)
    return np.asarray(seed, np.int64)


def whole(numbers: Array | None, name: str) -> Array | None:
    """Lengths or offsets as the kernels read them."""
    if numbers is None:
        return None
    if isinstance(numbers, np.ndarray):
        check_array(numbers, name)
        if numbers.dtype == np.int64 and numbers.ndim == 1:
            return numbers
    numbers = np.asarray(numbers)
    if not np.issubdtype(numbers.dtype, np.integer):
        raise TypeError(f"{name} must be whole numbers, but are {numbers.dtype}")
    return numbers.astype(np.int64, copy=False).reshape(-1)
