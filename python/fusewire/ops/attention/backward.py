"""The gradients of attention on NumPy arrays; for tensors autograd asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusewire.ops.attention.options import CausalAlignment, resolve

Array = NDArray[Any]

_OF_PRODUCTS = ("query", "key", "value")


def scaled_dot_product_attention_backward(
    grad_output: Array,
    query: Array,
    key: Array,
    value: Array,
    output: Array,
    lse: Array,
    attn_mask: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    grad_lse: Array | None = None,
    causal_alignment: CausalAlignment = "top_left",
    window: tuple[int, int] | None = None,
    softcap: float | None = None,
    alibi_slopes: Array | None = None,
    sinks: Array | None = None,
    query_lengths: Array | None = None,
    key_lengths: Array | None = None,
    seed: int | None = None,
    of: Sequence[str] = _OF_PRODUCTS,
) -> tuple[Array, ...]:
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
        attn_mask: See there; its gradient is of its own type.
        dropout_p: See there.
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
        seed: See there; must be given with `dropout_p`.
        of: The operands whose gradients are wanted, also ``"attn_mask"`` (floating),
            ``"alibi_slopes"`` and ``"sinks"``.

    Returns:
        The gradients in the order of `of`, each shaped like its operand.

    Raises:
        TypeError: If an operand is no array of a floating type, or their types differ.
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
    options = resolve(head_dim, is_causal, causal_alignment, window, scale, softcap, dropout_p)
    from fusewire.ops.attention import array
    from fusewire.ops.attention.reference import Extras

    extras = Extras(attn_mask, alibi_slopes, sinks, query_lengths, key_lengths, array.as_seed(seed))
    results = (grad_output, grad_lse, output, lse)
    return array.attention_backward(results, (query, key, value), options, enable_gqa, extras, of)


def varlen_attention_backward(
    grad_output: Array,
    query: Array,
    key: Array,
    value: Array,
    output: Array,
    lse: Array,
    query_offsets: Array,
    key_offsets: Array,
    attn_mask: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    grad_lse: Array | None = None,
    causal_alignment: CausalAlignment = "top_left",
    window: tuple[int, int] | None = None,
    softcap: float | None = None,
    alibi_slopes: Array | None = None,
    sinks: Array | None = None,
    seed: int | None = None,
    of: Sequence[str] = _OF_PRODUCTS,
) -> tuple[Array, ...]:
    """Computes the gradients of :func:`fusewire.varlen_attention` on NumPy arrays.

    Arguments, results and errors are those of :func:`scaled_dot_product_attention_backward`, in
    the shapes of the packed call.

    Args:
        grad_output: ``(total_queries, heads, value_dim)``, the gradient of the output.
        query: As in the forward call; so are all arguments that are not told here.
        key: See there.
        value: See there.
        output: ``(total_queries, heads, value_dim)``, what the forward call returned.
        lse: ``(heads, total_queries)``, what it returned with ``return_lse=True``.
        query_offsets: See there.
        key_offsets: See there.
        attn_mask: See there.
        dropout_p: See there.
        is_causal: See there.
        scale: See there.
        enable_gqa: See there.
        grad_lse: ``(heads, total_queries)``, the gradient of `lse`; none if None.
        causal_alignment: See there.
        window: See there.
        softcap: See there.
        alibi_slopes: See there.
        sinks: See there.
        seed: See there; must be given with `dropout_p`.
        of: The operands whose gradients are wanted.

    Returns:
        The gradients in the order of `of`, each shaped like its operand.

    Raises:
        TypeError: If an operand is no array of a floating type, or their types differ.
        ValueError: If shapes do not fit together.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> from fusewire.ops.attention import varlen_attention_backward
        >>> x, offsets = np.ones((3, 1, 2)), np.array([0, 2, 3])
        >>> output, lse = fw.varlen_attention(x, x, x, offsets, offsets, return_lse=True)
        >>> (gradient,) = varlen_attention_backward(
        ...     np.ones_like(x), x, x, x, output, lse, offsets, offsets, of=["value"])
        >>> gradient.shape
        (3, 1, 2)
    """
    head_dim = query.shape[-1] if isinstance(query, np.ndarray) and query.ndim else 0
    options = resolve(head_dim, is_causal, causal_alignment, window, scale, softcap, dropout_p)
    options = options._replace(packed=True)
    from fusewire.ops.attention import array
    from fusewire.ops.attention.reference import Extras

    extras = Extras(attn_mask, alibi_slopes, sinks, query_offsets, key_offsets, array.as_seed(seed))
    results = (grad_output, grad_lse, output, lse)
    return array.attention_backward(results, (query, key, value), options, enable_gqa, extras, of)
