"""Attention on NumPy arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusewire import _native
from fusewire.ops.attention import reference
from fusewire.ops.attention.options import Options, check_heads, resolve
from fusewire.ops.attention.reference import Extras

Array = NDArray[Any]


def attention(
    query: Array,
    key: Array,
    value: Array,
    options: Options,
    enable_gqa: bool,
    extras: Extras,
    return_lse: bool,
) -> Array | tuple[Array, Array]:
    """See :func:`fusewire.scaled_dot_product_attention`."""
    shape, dtype = query.shape, query.dtype
    operands, extras = _prepare((query, key, value), enable_gqa, extras)
    query, key, value = operands
    if options.softcap is not None or options.dropout_p > 0:
        _check(operands)
        scores = (*query.shape[:-1], key.shape[-2])
        dropped = np.random.default_rng().random(scores) < options.dropout_p
        output, lse = reference.attention(*operands, options, extras, dropped)
        output, lse = output.astype(dtype), lse.astype(dtype)
    else:
        output, lse = _native.attention(*operands, *_native_extras(operands, options, extras))
        if extras.sinks is not None:
            output, lse = _with_sinks(output, lse, extras.sinks)
    output = output.reshape(*shape[:-1], value.shape[-1])
    return (output, lse.reshape(shape[:-1])) if return_lse else output


def scaled_dot_product_attention_backward(
    grad_output: Array,
    query: Array,
    key: Array,
    value: Array,
    output: Array,
    lse: Array,
    attn_mask: Array | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    grad_lse: Array | None = None,
    causal_alignment: str = "top_left",
    window: tuple[int, int] | None = None,
    softcap: float | None = None,
    alibi_slopes: Array | None = None,
    sinks: Array | None = None,
    query_lengths: Array | None = None,
    key_lengths: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Computes the gradients of :func:`fusewire.scaled_dot_product_attention` on NumPy arrays.

    ``dS = P * (grad_output @ value.T - rowsum(grad_output * output) + grad_lse)`` with the
    probabilities ``P``, computed again from `lse` tile by tile.

    Args:
        grad_output: ``(..., heads, query_len, value_dim)``, the gradient of the output.
        query: As in the forward call; so are all arguments that are not told here.
        key: See there.
        value: See there.
        output: ``(..., heads, query_len, value_dim)``, what the forward call returned.
        lse: ``(..., heads, query_len)``, what it returned with ``return_lse=True``.
        attn_mask: See there.
        is_causal: See there.
        scale: See there.
        enable_gqa: See there.
        grad_lse: ``(..., heads, query_len)``, the gradient of `lse`; none if None.
        causal_alignment: See there.
        window: See there.
        softcap: See there.
        alibi_slopes: See there.
        sinks: See there.
        query_lengths: See there.
        key_lengths: See there.

    Returns:
        The gradients of query, key and value, shaped like them.

    Raises:
        TypeError: If an operand is no float32 or float64 array, or their types differ.
        ValueError: If shapes do not fit together.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> from fusewire.ops.attention import scaled_dot_product_attention_backward
        >>> query, key, value = np.ones((3, 1, 2, 4))
        >>> output, lse = fw.scaled_dot_product_attention(query, key, value, return_lse=True)
        >>> gradients = scaled_dot_product_attention_backward(
        ...     np.ones_like(output), query, key, value, output, lse)
        >>> gradients[2]
        array([[[1., 1., 1., 1.],
                [1., 1., 1., 1.]]])
    """
    head_dim = query.shape[-1] if isinstance(query, np.ndarray) and query.ndim else 0
    options = resolve(head_dim, is_causal, causal_alignment, window, scale, softcap, 0.0)
    extras = Extras(attn_mask, alibi_slopes, sinks, query_lengths, key_lengths)
    operands, extras = _prepare((query, key, value), enable_gqa, extras)
    lead = operands[0].shape[:-1]
    grad_output, output = (_with_one_batch(array, "grad_output") for array in (grad_output, output))
    lse = lse.reshape(lead)
    grad_lse = None if grad_lse is None else grad_lse.reshape(lead)
    if softcap is None:
        native = _native_extras(operands, options, extras)
        gradients = _native.attention_backward(
            grad_output, grad_lse, output, lse, *operands, *native
        )
    else:
        _check(operands)
        gradients = [
            gradient.astype(query.dtype)
            for gradient in reference.attention_backward(
                grad_output, grad_lse, operands, options, extras
            )
        ]
    grad_query, grad_key, grad_value = gradients
    return (
        grad_query.reshape(query.shape),
        grad_key.reshape(key.shape),
        grad_value.reshape(value.shape),
    )


def _prepare(
    operands: tuple[Array, Array, Array], enable_gqa: bool, extras: Extras
) -> tuple[tuple[Array, Array, Array], Extras]:
    """All operands with exactly one batch dimension, checked where Rust cannot."""
    names = ("query", "key", "value")
    lead = operands[0].shape[:-1] if isinstance(operands[0], np.ndarray) else ()
    query, key, value = (
        _with_one_batch(operand, name) for operand, name in zip(operands, names, strict=True)
    )
    check_heads(query.shape[1], key.shape[1], enable_gqa)
    batch, scores = query.shape[0], (*query.shape[:-1], key.shape[-2])
    return (query, key, value), Extras(
        _mask(extras.attn_mask, (*lead, key.shape[-2]), scores, query.dtype),
        _per_head(extras.alibi_slopes, "alibi_slopes", query.shape[1]),
        _per_head(extras.sinks, "sinks", query.shape[1]),
        _lengths(extras.query_lengths, "query_lengths", batch),
        _lengths(extras.key_lengths, "key_lengths", batch),
    )


def _with_one_batch(array: Array, name: str) -> Array:
    """``(..., heads, length, dim)`` as ``(batch, heads, length, dim)``."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, but is {type(array).__name__}")
    if array.ndim < 2:
        raise ValueError(
            f"{name} must have at least 2 dimensions, but has shape {list(array.shape)}"
        )
    if array.ndim == 2:
        array = array[None]
    return array.reshape(math.prod(array.shape[:-3]), *array.shape[-3:])


def _mask(
    mask: Array | None, shape: tuple[int, ...], scores: tuple[int, ...], dtype: np.dtype[Any]
) -> Array | None:
    if mask is None:
        return None
    if not isinstance(mask, np.ndarray):
        raise TypeError(f"attn_mask must be a NumPy array, but is {type(mask).__name__}")
    if mask.dtype != bool:
        if not np.issubdtype(mask.dtype, np.floating):
            raise TypeError(f"attn_mask must be bool or floating, but is {mask.dtype}")
        mask = mask.astype(dtype, copy=False)
    try:
        mask = np.broadcast_to(mask, shape)
    except ValueError:
        raise ValueError(
            f"attn_mask must be broadcastable to {list(shape)}, but has shape {list(mask.shape)}"
        ) from None
    return mask.reshape(scores)


def _lengths(lengths: Array | None, name: str, batch: int) -> Array | None:
    if lengths is None:
        return None
    lengths = np.asarray(lengths)
    if not np.issubdtype(lengths.dtype, np.integer):
        raise TypeError(f"{name} must be whole numbers, but are {lengths.dtype}")
    lengths = lengths.astype(np.int64, copy=False)
    return lengths.reshape(batch) if lengths.size == batch else lengths


def _per_head(numbers: Array | None, name: str, heads: int) -> Array | None:
    if numbers is None:
        return None
    numbers = np.asarray(numbers)
    if numbers.shape != (heads,):
        raise ValueError(f"{name} must have shape [{heads}], but has {list(numbers.shape)}")
    return numbers


def _native_extras(
    operands: tuple[Array, Array, Array], options: Options, extras: Extras
) -> tuple[Any, ...]:
    """What the kernels take behind query, key and value."""
    query, key, _ = operands
    mask = extras.attn_mask
    if extras.alibi_slopes is not None:
        lengths = query.shape[-2], key.shape[-2]
        bias = reference.alibi_bias(*lengths, options.bottom_right, extras)
        if mask is not None:
            bias = np.where(mask, bias, -np.inf) if mask.dtype == bool else bias + mask
        mask = np.broadcast_to(bias.astype(query.dtype), (*query.shape[:-1], key.shape[-2]))
    return (mask, extras.query_lengths, extras.key_lengths, *options.score)


def _check(operands: tuple[Array, Array, Array]) -> None:
    """Lets the kernels refuse what does not fit, on no queries at all."""
    query, key, value = operands
    _native.attention(query[:, :, :0], key, value, None, None, None, 1.0, -1, -1, False)


def _with_sinks(output: Array, lse: Array, sinks: Array) -> tuple[Array, Array]:
    """The results as if every query of a head had one more key, of that score and a value of 0."""
    scores = sinks.astype(lse.dtype)[:, None]
    with np.errstate(over="ignore"):
        share = 1 / (1 + np.exp(scores - lse))
    return output * share[..., None], np.logaddexp(lse, scores)
