"""Attention on padded batches: one door for NumPy arrays and PyTorch tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from fusewire import _native
from fusewire.ops.attention.options import CausalAlignment, resolve
from fusewire.ops.door import is_tensor

if TYPE_CHECKING:
    import torch

_plain: Callable[..., Any] | None = None
"""The short way of plain tensors, known from the first call with tensors on."""


@overload
def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    causal_alignment: CausalAlignment = "top_left",
    window: tuple[int, int] | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    query_lengths: torch.Tensor | None = None,
    key_lengths: torch.Tensor | None = None,
    seed: int | torch.Tensor | None = None,
    return_lse: Literal[False] = False,
) -> torch.Tensor: ...
@overload
def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    causal_alignment: CausalAlignment = "top_left",
    window: tuple[int, int] | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    query_lengths: torch.Tensor | None = None,
    key_lengths: torch.Tensor | None = None,
    seed: int | torch.Tensor | None = None,
    return_lse: Literal[True],
) -> tuple[torch.Tensor, torch.Tensor]: ...
@overload
def scaled_dot_product_attention(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    attn_mask: NDArray[Any] | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    causal_alignment: CausalAlignment = "top_left",
    window: tuple[int, int] | None = None,
    softcap: float | None = None,
    alibi_slopes: NDArray[Any] | None = None,
    sinks: NDArray[Any] | None = None,
    query_lengths: NDArray[Any] | None = None,
    key_lengths: NDArray[Any] | None = None,
    seed: int | None = None,
    return_lse: Literal[False] = False,
) -> NDArray[Any]: ...
@overload
def scaled_dot_product_attention(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    attn_mask: NDArray[Any] | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    causal_alignment: CausalAlignment = "top_left",
    window: tuple[int, int] | None = None,
    softcap: float | None = None,
    alibi_slopes: NDArray[Any] | None = None,
    sinks: NDArray[Any] | None = None,
    query_lengths: NDArray[Any] | None = None,
    key_lengths: NDArray[Any] | None = None,
    seed: int | None = None,
    return_lse: Literal[True],
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    causal_alignment: CausalAlignment = "top_left",
    window: tuple[int, int] | None = None,
    softcap: float | None = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    query_lengths: Any = None,
    key_lengths: Any = None,
    seed: Any = None,
    return_lse: bool = False,
) -> Any:
    """Weighs values by how well their keys match each query.

    ``output = dropout(softmax(softcap(scale * query @ key.T) + mask - alibi)) @ value``

    A query that attends to no key gets 0. The diagonal joins query and key of the same index
    (``"top_left"``), or the last query and the last key (``"bottom_right"``, counted within the
    lengths); causal attention, windows and ALiBi are all measured from it. All options may be
    combined; `attn_mask` and `is_causal` as well. Dimensions before the heads are broadcast.

    On the CPU, kernels compute in float32 or float64 with extra memory linear in the lengths,
    the gradients of all floating operands included. Operands of bfloat16 and float16 are multiplied
    as they are, and sums are float32; so are the logarithms. Second derivatives, `torch.func` and
    other devices run on PyTorch's own operators.

    Args:
        query: ``(..., heads, query_len, head_dim)``, an array or a tensor.
        key: ``(..., kv_heads, key_len, head_dim)``, like `query`.
        value: ``(..., kv_heads, key_len, value_dim)``, like `query`.
        attn_mask: Broadcastable to ``(..., heads, query_len, key_len)``; bool (True where a query
            attends) or floating (added to the scores, in float32 where operands of 16 bits come
            with a mask of another type, which takes their time in float32). Only -inf hides:
            finite numbers beyond those of float32 count as its largest.
        dropout_p: Probability with which a weight is dropped; the others are divided by
            ``1 - dropout_p``.
        is_causal: Whether a query attends to no key behind the diagonal.
        scale: Factor of the scores; ``1 / sqrt(head_dim)`` if None.
        enable_gqa: Whether several heads of `query` may share one of `key` and `value`.
        causal_alignment: Where the diagonal lies, ``"top_left"`` or ``"bottom_right"``.
        window: How many keys ``(before, behind)`` the diagonal a query sees; -1 is without bound.
        softcap: Scores become ``softcap * tanh(score / softcap)`` before the mask; a number that
            float32 holds.
        alibi_slopes: ``(heads)`` or ``(batch, heads)``; ``slope * |distance of the key from the
            query's place on the diagonal|`` is taken off the scores.
        sinks: ``(heads)`` or ``(batch, heads)``; the score of one more key whose value is 0.
        query_lengths: ``(batch)``, how many queries of each batch row exist; all if None.
        key_lengths: ``(batch)``, how many keys of each batch row exist; all if None.
        seed: Decides what is dropped, with any number of threads. If None, one is drawn: for
            tensors from PyTorch's generator (`torch.manual_seed`), for arrays from fresh entropy.
        return_lse: Whether to return the logarithms too.

    Returns:
        ``(..., heads, query_len, value_dim)``, of the kind of `query`; with `return_lse` also
        ``log(sum(exp(scores)))``, ``(..., heads, query_len)``, the sink included; -inf for a query
        that has neither key nor sink.

    Raises:
        TypeError: If an operand is neither array nor tensor, their types differ, or an option is
            nothing of its kind.
        ValueError: If shapes or lengths do not fit together, or an option is out of range. Lengths
            on other devices and in batches of `torch.vmap` are not looked at.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> value = np.array([[[1.0], [3.0]]])
        >>> fw.scaled_dot_product_attention(np.ones((1, 2, 4)), np.ones((1, 2, 4)), value,
        ...                                 is_causal=True)
        array([[[1.],
                [2.]]])
    """
    if (
        _plain is not None
        and attn_mask is None
        and dropout_p == 0.0
        and causal_alignment == "top_left"
        and window is None
        and softcap is None
        and alibi_slopes is None
        and sinks is None
        and query_lengths is None
        and key_lengths is None
        and (seed is None or type(seed) is int)
        and not return_lse
    ):
        output = _plain(query, key, value, is_causal, scale, enable_gqa)
        if output is not None:
            return output
    head_dim = query.shape[-1] if getattr(query, "shape", ()) else 0
    options = resolve(head_dim, is_causal, causal_alignment, window, scale, softcap, dropout_p)
    given = (attn_mask, alibi_slopes, sinks, query_lengths, key_lengths)
    if is_tensor(query):
        from fusewire.ops.attention import autograd, composed

        _shorten()
        extras = composed.Extras(*given, composed.as_seed(seed, options))
        return autograd.attention(query, key, value, options, enable_gqa, extras, return_lse)
    if isinstance(query, np.ndarray):
        from fusewire.ops.attention import array, reference

        arrays = reference.Extras(*given, array.as_seed(seed))
        return array.attention(query, key, value, options, enable_gqa, arrays, return_lse)
    raise TypeError(
        f"query must be a NumPy array or a PyTorch tensor, but is {type(query).__name__}"
    )


def _shorten() -> None:
    """Lets the next call with plain tensors take the short way, where this PyTorch has it."""
    global _plain
    from fusewire.ops.attention import plain
    from fusewire.ops.dispatcher import is_compiling

    # A compiler does not come back to see that this has changed.
    if _plain is None and not is_compiling() and _native.takes_tensors():
        _plain = plain.attention
