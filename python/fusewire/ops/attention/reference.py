"""Attention as it is defined, in float64 with all scores at once: the truth for tests.

All arrays have the shapes of the docstring of :func:`fusewire.scaled_dot_product_attention` with
exactly one batch dimension.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusewire.ops.attention.dropout import dropped, kept_scale
from fusewire.ops.attention.options import NO_CAP, UNBOUNDED, Options

Array = NDArray[np.float64]


class Extras(NamedTuple):
    """Operands that may be missing, in the order in which the kernels take them."""

    attn_mask: NDArray[Any] | None = None
    alibi_slopes: NDArray[Any] | None = None
    sinks: NDArray[Any] | None = None
    query_lengths: NDArray[Any] | None = None
    key_lengths: NDArray[Any] | None = None
    seed: NDArray[Any] | None = None


class Gradients(NamedTuple):
    """The gradients of the operands, shaped like them; None where there is no such operand."""

    query: Array
    key: Array
    value: Array
    attn_mask: Array | None
    alibi_slopes: Array | None
    sinks: Array | None


def _distances(query_len: int, key_len: int, options: Options, extras: Extras) -> NDArray[np.int64]:
    """How far each key lies behind each query's place on the diagonal.

    Returns:
        ``(batch or 1, 1, query_len, key_len)``.
    """
    distance = np.arange(key_len)[None, :] - np.arange(query_len)[:, None]
    if not options.bottom_right:
        return distance[None, None]
    queries = query_len if extras.query_lengths is None else extras.query_lengths
    keys = key_len if extras.key_lengths is None else extras.key_lengths
    diagonal = np.atleast_1d(np.asarray(keys) - np.asarray(queries))
    shifted: NDArray[np.int64] = distance[None, None] - diagonal[:, None, None, None]
    return shifted


def _hidden(query_len: int, key_len: int, options: Options, extras: Extras) -> NDArray[np.bool_]:
    """Where a query does not reach a key, ``(batch or 1, 1, query_len, key_len)``."""
    distance = _distances(query_len, key_len, options, extras)
    hidden = np.zeros(distance.shape, bool)
    if options.left != UNBOUNDED:
        hidden = hidden | (distance < -options.left)
    if options.right != UNBOUNDED:
        hidden = hidden | (distance > options.right)
    if extras.query_lengths is not None:
        missing = np.arange(query_len) >= np.asarray(extras.query_lengths)[:, None]
        hidden = hidden | missing[:, None, :, None]
    if extras.key_lengths is not None:
        missing = np.arange(key_len) >= np.asarray(extras.key_lengths)[:, None]
        hidden = hidden | missing[:, None, None, :]
    return hidden


def _per_head(numbers: NDArray[Any]) -> Array:
    """``(heads)`` or ``(batch, heads)`` as ``(1 or batch, heads, 1, 1)``."""
    return np.atleast_2d(np.asarray(numbers, np.float64))[:, :, None, None]


def _scores(
    query: NDArray[Any], key: NDArray[Any], options: Options, extras: Extras
) -> tuple[Array, Array]:
    """The scores, and their derivative with respect to ``query @ key.T``."""
    group = query.shape[1] // key.shape[1]
    keys = np.repeat(key.astype(np.float64), group, axis=1)
    scores = options.scale * query.astype(np.float64) @ keys.swapaxes(-1, -2)
    slope = np.full_like(scores, options.scale)
    if options.softcap != NO_CAP:
        capped = np.tanh(scores / options.softcap)
        scores, slope = options.softcap * capped, options.scale * (1 - capped**2)
    query_len, key_len = scores.shape[-2:]
    if extras.alibi_slopes is not None:
        distance = np.abs(_distances(query_len, key_len, options, extras))
        scores = scores - _per_head(extras.alibi_slopes) * distance
    if extras.attn_mask is not None:
        mask = extras.attn_mask
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    return np.where(_hidden(query_len, key_len, options, extras), -np.inf, scores), slope


def _softmax(scores: Array, sinks: NDArray[Any] | None) -> tuple[Array, Array]:
    """Probabilities, and the logarithm of the sum of exponentials; 0 and -inf where nothing is."""
    sink = np.full((1, 1, 1, 1), -np.inf) if sinks is None else _per_head(sinks)
    highest = np.maximum(scores.max(axis=-1, initial=-np.inf, keepdims=True), sink)
    unit = np.where(np.isneginf(highest), 0, highest)
    powers = np.exp(scores - unit)
    total = powers.sum(axis=-1, keepdims=True) + np.exp(sink - unit)
    with np.errstate(divide="ignore", invalid="ignore"):
        probabilities = np.where(total == 0, 0, powers / total)
        lse = (unit + np.log(total))[..., 0]
    return probabilities, lse


def _factors(shape: tuple[int, ...], options: Options, extras: Extras) -> Array:
    """What dropout multiplies the probabilities by."""
    if extras.seed is None or not options.dropout_p:
        return np.ones(shape)
    batch, heads, queries, keys = np.ogrid[tuple(map(slice, shape))]
    seed = np.asarray(extras.seed, np.int64).reshape(1, 1, 1, 1)
    lost = dropped(options.dropout_p, seed, (batch, heads, queries), keys)
    return np.where(lost, 0, kept_scale(options.dropout_p))


def attention(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    options: Options,
    extras: Extras,
) -> tuple[Array, Array]:
    """The output and the logarithms of the sums of exponentials."""
    probabilities, lse = _softmax(_scores(query, key, options, extras)[0], extras.sinks)
    probabilities = probabilities * _factors(probabilities.shape, options, extras)
    group = query.shape[1] // key.shape[1]
    return probabilities @ np.repeat(value.astype(np.float64), group, axis=1), lse


def attention_backward(
    grad_output: NDArray[Any],
    grad_lse: NDArray[Any] | None,
    operands: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    options: Options,
    extras: Extras,
) -> Gradients:
    """The gradients of everything that has one."""
    query, key, value = (operand.astype(np.float64) for operand in operands)
    batch, kv_heads, key_len, _ = key.shape
    group = query.shape[1] // kv_heads
    scores, slope = _scores(query, key, options, extras)
    probabilities, lse = _softmax(scores, extras.sinks)
    factors = _factors(scores.shape, options, extras)
    grad_probabilities = grad_output @ np.repeat(value, group, axis=1).swapaxes(-1, -2) * factors
    mean = (probabilities * grad_probabilities).sum(axis=-1, keepdims=True)
    if grad_lse is not None:
        mean = mean - grad_lse[..., None]
    grad_scores = probabilities * (grad_probabilities - mean)
    grad_products = grad_scores * slope

    def of_group(per_head: Array) -> Array:
        members = per_head.reshape(batch, kv_heads, group, key_len, per_head.shape[-1])
        total: Array = members.sum(axis=2)
        return total

    mask = slopes = sinks = None
    if extras.attn_mask is not None and extras.attn_mask.dtype != bool:
        mask = summed_to(grad_scores, extras.attn_mask.shape)
    if extras.alibi_slopes is not None:
        distance = np.abs(_distances(query.shape[-2], key_len, options, extras))
        slopes = summed_to(-(grad_scores * distance).sum((-1, -2)), extras.alibi_slopes.shape)
    if extras.sinks is not None:
        share = np.exp(_per_head(extras.sinks)[..., 0] - lse)
        sinks = summed_to(-(share * mean[..., 0]).sum(-1), extras.sinks.shape)
    return Gradients(
        grad_products @ np.repeat(key, group, axis=1),
        of_group(grad_products.swapaxes(-1, -2) @ query),
        of_group((probabilities * factors).swapaxes(-1, -2) @ grad_output),
        mask,
        slopes,
        sinks,
    )


def summed_to(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The gradient of what was broadcast from `shape`: the sum over what it was repeated for."""
    leading = array.ndim - len(shape)
    repeated = [
        axis
        for axis in range(array.ndim)
        if axis < leading or (shape[axis - leading] == 1 and array.shape[axis] != 1)
    ]
    # With the dimensions kept, or the sum of everything would not be an array.
    total: NDArray[Any] = array.sum(tuple(repeated), keepdims=True) if repeated else array
    return total.reshape(shape)
