"""Attention as it is defined, in float64 with all scores at once: the truth for tests.

All arrays have the shapes of the docstring of :func:`fusewire.scaled_dot_product_attention` with
exactly one batch dimension.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusewire.ops.attention.options import UNBOUNDED, Options

Array = NDArray[np.float64]


class Extras(NamedTuple):
    """Operands that may be missing."""

    attn_mask: NDArray[Any] | None = None
    alibi_slopes: NDArray[Any] | None = None
    sinks: NDArray[Any] | None = None
    query_lengths: NDArray[Any] | None = None
    key_lengths: NDArray[Any] | None = None


def distances(
    query_len: int, key_len: int, bottom_right: bool, extras: Extras
) -> NDArray[np.int64]:
    """How far each key lies behind each query's place on the diagonal.

    Returns:
        ``(batch or 1, 1, query_len, key_len)``.
    """
    distance = np.arange(key_len)[None, :] - np.arange(query_len)[:, None]
    if not bottom_right:
        return distance[None, None]
    queries = query_len if extras.query_lengths is None else extras.query_lengths
    keys = key_len if extras.key_lengths is None else extras.key_lengths
    diagonal = np.atleast_1d(np.asarray(keys) - np.asarray(queries))
    shifted: NDArray[np.int64] = distance[None, None] - diagonal[:, None, None, None]
    return shifted


def alibi_bias(query_len: int, key_len: int, bottom_right: bool, extras: Extras) -> Array:
    """``-slope * |distance|``, ``(batch or 1, heads, query_len, key_len)``."""
    slopes = np.asarray(extras.alibi_slopes, np.float64)[:, None, None]
    return -slopes * np.abs(distances(query_len, key_len, bottom_right, extras))


def _hidden(query_len: int, key_len: int, options: Options, extras: Extras) -> NDArray[np.bool_]:
    """Where a query does not reach a key, ``(batch or 1, 1, query_len, key_len)``."""
    distance = distances(query_len, key_len, options.bottom_right, extras)
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


def _scores(
    query: NDArray[Any], key: NDArray[Any], options: Options, extras: Extras
) -> tuple[Array, Array]:
    """The scores, and their derivative with respect to ``scale * query @ key.T``."""
    group = query.shape[1] // key.shape[1]
    keys = np.repeat(key.astype(np.float64), group, axis=1)
    scores = options.scale * query.astype(np.float64) @ keys.swapaxes(-1, -2)
    slope = np.ones_like(scores)
    if options.softcap is not None:
        capped = np.tanh(scores / options.softcap)
        scores, slope = options.softcap * capped, 1 - capped**2
    query_len, key_len = scores.shape[-2:]
    if extras.alibi_slopes is not None:
        scores = scores + alibi_bias(query_len, key_len, options.bottom_right, extras)
    if extras.attn_mask is not None:
        mask = extras.attn_mask
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    return np.where(_hidden(query_len, key_len, options, extras), -np.inf, scores), slope


def _softmax(scores: Array, sinks: NDArray[Any] | None) -> tuple[Array, Array]:
    """Probabilities, and the logarithm of the sum of exponentials; 0 and -inf where nothing is."""
    highest = scores.max(axis=-1, initial=-np.inf)
    if sinks is not None:
        highest = np.maximum(highest, sinks[:, None])
    unit = np.where(np.isneginf(highest), 0, highest)[..., None]
    powers = np.exp(scores - unit)
    total = powers.sum(axis=-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sinks[:, None, None] - unit)
    with np.errstate(divide="ignore", invalid="ignore"):
        probabilities = np.where(total == 0, 0, powers / total)
        lse = (unit + np.log(total))[..., 0]
    return probabilities, lse


def attention(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    options: Options,
    extras: Extras,
    dropped: NDArray[np.bool_] | None = None,
) -> tuple[Array, Array]:
    """The output and the logarithms of the sums of exponentials.

    `dropped` says which probabilities dropout takes away, ``(batch, heads, query_len, key_len)``.
    """
    probabilities, lse = _softmax(_scores(query, key, options, extras)[0], extras.sinks)
    if dropped is not None:
        kept = 1 - options.dropout_p
        probabilities = np.where(dropped, 0, probabilities / kept if kept else 0)
    group = query.shape[1] // key.shape[1]
    return probabilities @ np.repeat(value.astype(np.float64), group, axis=1), lse


def attention_backward(
    grad_output: NDArray[Any],
    grad_lse: NDArray[Any] | None,
    operands: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    options: Options,
    extras: Extras,
) -> tuple[Array, Array, Array]:
    """The gradients of query, key and value."""
    query, key, value = (operand.astype(np.float64) for operand in operands)
    batch, kv_heads, key_len, _ = key.shape
    group = query.shape[1] // kv_heads
    scores, slope = _scores(query, key, options, extras)
    probabilities, _ = _softmax(scores, extras.sinks)
    grad_probabilities = grad_output @ np.repeat(value, group, axis=1).swapaxes(-1, -2)
    mean = (probabilities * grad_probabilities).sum(axis=-1, keepdims=True)
    if grad_lse is not None:
        mean = mean - grad_lse[..., None]
    grad_scores = options.scale * slope * probabilities * (grad_probabilities - mean)

    def of_group(per_head: Array) -> Array:
        members = per_head.reshape(batch, kv_heads, group, key_len, per_head.shape[-1])
        total: Array = members.sum(axis=2)
        return total

    return (
        grad_scores @ np.repeat(key, group, axis=1),
        of_group(grad_scores.swapaxes(-1, -2) @ query),
        of_group(probabilities.swapaxes(-1, -2) @ grad_output),
    )
