"""Attention to a cache that lies in blocks: one door for NumPy arrays and PyTorch tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusewire import _native
from fusewire.ops.attention.options import resolve
from fusewire.ops.door import check_array, is_tensor

_BLOCKS = ("query", "key_blocks", "value_blocks", "block_table")


def paged_attention(
    query: Any,
    key_blocks: Any,
    value_blocks: Any,
    block_table: Any,
    key_lengths: Any,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    window: tuple[int, int] | None = None,
    softcap: float | None = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    return_lse: bool = False,
) -> Any:
    """Lets the last queries of sequences attend to keys and values in blocks of a common pool.

    ``output = softmax(scale * query @ key.T) @ value``, where row ``j`` of a sequence's keys is
    ``key_blocks[block_table[batch, j // block_size], j % block_size]``.

    Several query heads may share one of keys and values. The diagonal joins the last query and the
    last key in use. For inference: no gradients.

    Args:
        query: ``(batch, heads, query_len, head_dim)``, an array or a tensor.
        key_blocks: ``(num_blocks, block_size, kv_heads, head_dim)``, like `query`.
        value_blocks: ``(num_blocks, block_size, kv_heads, value_dim)``, like `query`.
        block_table: ``(batch, max_blocks)``, int32: the blocks of each sequence in order; those
            beyond its length are not looked at.
        key_lengths: ``(batch)``, keys in use of each sequence, those of `query` included.
        is_causal: Whether a query attends to no key behind the diagonal.
        scale: Factor of the scores; ``1 / sqrt(head_dim)`` if None.
        window: How many keys ``(before, behind)`` the diagonal a query sees; -1 is without bound.
        softcap: Scores become ``softcap * tanh(score / softcap)``.
        alibi_slopes: ``(heads)`` or ``(batch, heads)``; ``slope * |distance of the key from the
            query's place on the diagonal|`` is taken off the scores.
        sinks: ``(heads)`` or ``(batch, heads)``; the score of one more key whose value is 0.
        return_lse: Whether to return the logarithms too.

    Returns:
        ``(batch, heads, query_len, value_dim)``, of the kind of `query`; with `return_lse` also
        ``log(sum(exp(scores)))``, ``(batch, heads, query_len)``, float32 for half precision.

    Raises:
        TypeError: If an operand is neither array nor tensor, or their types differ.
        ValueError: If shapes do not fit together, a length is out of range, or a block is not in
            the pool.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> blocks = np.arange(8.0).reshape(2, 2, 1, 2)
        >>> fw.paged_attention(np.zeros((1, 1, 1, 2)), blocks, blocks,
        ...                    np.array([[1, 0]], np.int32), np.array([3]))
        array([[[[3.33333333, 4.33333333]]]])
    """
    head_dim = query.shape[-1] if getattr(query, "shape", ()) else 0
    options = resolve(head_dim, is_causal, "bottom_right", window, scale, softcap, 0.0)
    score = (options.scale, options.softcap, options.left, options.right, options.bottom_right)
    operands = (query, key_blocks, value_blocks, block_table)
    if is_tensor(query):
        from fusewire.ops import dispatcher
        from fusewire.ops.attention import autograd, composed, decode

        try:
            real = dispatcher.real_of(query.dtype)
            numbers = (
                autograd.per_head(alibi_slopes, "alibi_slopes", real),
                autograd.per_head(sinks, "sinks", real),
            )
            if query.device.type == "cpu":
                output, lse = decode.attention(*operands, key_lengths.long(), *numbers, *score)
            else:
                # Elsewhere blocks are joined, and keys beyond the lengths hidden.
                known = block_table.long().clamp(0, key_blocks.shape[0] - 1)
                key, value = (
                    blocks[known].flatten(1, 2).transpose(1, 2)
                    for blocks in (key_blocks, value_blocks)
                )
                extras = composed.Extras(None, *numbers, None, key_lengths)
                output, lse = autograd.attention(query, key, value, options, True, extras, True)
        except (RuntimeError, AttributeError) as error:
            given = dict(zip(_BLOCKS, operands, strict=True), key_lengths=key_lengths)
            raise dispatcher.as_raised(error, **given) from None
    elif isinstance(query, np.ndarray):
        from fusewire.ops.attention import array

        for name, operand in zip(_BLOCKS, operands, strict=True):
            check_array(operand, name)
        lengths = np.asarray(key_lengths).astype(np.int64, casting="safe", copy=False)
        kind = np.dtype(np.float64 if query.dtype == np.float64 else np.float32)
        arrays = (
            array.per_head(alibi_slopes, "alibi_slopes", kind),
            array.per_head(sinks, "sinks", kind),
        )
        output, lse = _native.decode_attention((*operands, lengths, *arrays), score)
    else:
        raise TypeError(
            f"query must be a NumPy array or a PyTorch tensor, but is {type(query).__name__}"
        )
    return (output, lse) if return_lse else output
