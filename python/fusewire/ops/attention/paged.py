"""Attention to a cache that lies in blocks: one door for NumPy arrays and PyTorch tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusewire import _native
from fusewire.ops.attention.options import Options, resolve
from fusewire.ops.door import check_array, is_floating, is_tensor

_BLOCKS = ("query", "key_blocks", "value_blocks", "block_table")
_ADVICE = "; keep the cache in the type of the queries, or convert these"


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
    last key in use. For inference: no gradients. PyTorch's autocast converts `query` and both
    pools, which costs more than the attention: keep the cache in its type.

    Args:
        query: ``(batch, heads, query_len, head_dim)``, an array or a tensor.
        key_blocks: ``(num_blocks, block_size, kv_heads, head_dim)``, of the type of `query`, with
            rows of ``head_dim`` numbers that lie side by side; other strides may be any.
        value_blocks: ``(num_blocks, block_size, kv_heads, value_dim)``, likewise.
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
        TypeError: If an operand is neither array nor tensor, types differ, or lengths are no whole
            numbers.
        ValueError: If shapes do not fit together, a length is out of range, a block is not in the
            pool, rows of the pools are strided, or an operand requires gradients.

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
    operands = (query, key_blocks, value_blocks, block_table)
    extras = (key_lengths, alibi_slopes, sinks)
    if key_lengths is None:
        raise TypeError("key_lengths must be whole numbers, but is None")
    if is_tensor(query):
        results = _on_tensors(operands, extras, options)
    elif isinstance(query, np.ndarray):
        results = _on_arrays(operands, extras, options)
    else:
        raise TypeError(
            f"query must be a NumPy array or a PyTorch tensor, but is {type(query).__name__}"
        )
    return results if return_lse else results[0]


def _score(options: Options) -> tuple[float, float, int, int, bool]:
    return options.scale, options.softcap, options.left, options.right, options.bottom_right


def _on_tensors(
    operands: tuple[Any, ...], extras: tuple[Any, ...], options: Options
) -> tuple[Any, Any]:
    from fusewire.ops import dispatcher
    from fusewire.ops.attention import decode, tensors

    query, key_blocks, value_blocks, block_table = operands
    key_lengths, alibi_slopes, sinks = extras
    query, key_blocks, value_blocks = dispatcher.autocast(query, key_blocks, value_blocks)
    try:
        floating = (query, key_blocks, value_blocks, alibi_slopes, sinks)
        if dispatcher.needs_gradient(*floating) or dispatcher.has_tangent(*floating):
            raise ValueError(
                "paged_attention has no gradients, but an operand requires them; call it under "
                "torch.no_grad(), or with operands that are detached"
            )
        real = dispatcher.real_of(query.dtype)
        numbers = (
            tensors.per_head(alibi_slopes, "alibi_slopes", real),
            tensors.per_head(sinks, "sinks", real),
        )
        lengths = tensors.whole(key_lengths, "key_lengths")
        if query.device.type == "cpu":
            native = (query, key_blocks, value_blocks, block_table, lengths, *numbers)
            results: tuple[Any, Any] = decode.attention(*native, *_score(options))
            return results
        from fusewire.ops.attention import autograd, composed

        # Elsewhere blocks are joined, and keys beyond the lengths hidden.
        known = block_table.long().clamp(0, key_blocks.shape[0] - 1)
        key, value = (
            blocks[known].flatten(1, 2).transpose(1, 2) for blocks in (key_blocks, value_blocks)
        )
        given = composed.Extras(None, *numbers, None, lengths)
        output, lse = autograd.attention(query, key, value, options, True, given, True)
    except (RuntimeError, AttributeError) as error:
        named = dict(zip(_BLOCKS, operands, strict=True), key_lengths=key_lengths)
        named |= {"alibi_slopes": alibi_slopes, "sinks": sinks}
        told = dispatcher.as_raised(error, ("alibi_slopes", "sinks"), **named)
        blocks = (query, key_blocks, value_blocks)
        if all(map(is_tensor, blocks)):
            # Where types are what is wrong, what to do about it.
            typed = dict(zip(_BLOCKS, blocks, strict=False))
            told = tensors.wrong_type(_ADVICE, **typed) or told
        raise told from None
    return output, lse


def _on_arrays(
    operands: tuple[Any, ...], extras: tuple[Any, ...], options: Options
) -> tuple[NDArray[Any], NDArray[Any]]:
    from fusewire.ops.attention import array

    for name, operand in zip(_BLOCKS, operands, strict=True):
        check_array(operand, name)
    stored = operands[0].dtype
    for name, operand in zip(_BLOCKS[1:3], operands[1:3], strict=True):
        if operand.dtype != stored and is_floating(stored):
            raise TypeError(f"{name} must be {stored} like query, but is {operand.dtype}{_ADVICE}")
    key_lengths, alibi_slopes, sinks = extras
    kind = np.dtype(np.float64 if stored == np.float64 else np.float32)
    given = (
        *operands,
        array.whole(key_lengths, "key_lengths"),
        array.per_head(alibi_slopes, "alibi_slopes", kind),
        array.per_head(sinks, "sinks", kind),
    )
    output, lse = _native.decode_attention(given, _score(options))
    return output, lse
