"""Attention on packed batches: sequences of any lengths, one behind the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from fusewire.ops.attention.options import CausalAlignment, resolve
from fusewire.ops.door import is_tensor

if TYPE_CHECKING:
    import torch


@overload
def varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_offsets: torch.Tensor,
    key_offsets: torch.Tensor,
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
    seed: int | torch.Tensor | None = None,
    return_lse: Literal[False] = False,
) -> torch.Tensor: ...
@overload
def varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_offsets: torch.Tensor,
    key_offsets: torch.Tensor,
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
    seed: int | torch.Tensor | None = None,
    return_lse: Literal[True],
) -> tuple[torch.Tensor, torch.Tensor]: ...
@overload
def varlen_attention(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    query_offsets: NDArray[Any],
    key_offsets: NDArray[Any],
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
    seed: int | None = None,
    return_lse: Literal[False] = False,
) -> NDArray[Any]: ...
@overload
def varlen_attention(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    query_offsets: NDArray[Any],
    key_offsets: NDArray[Any],
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
    seed: int | None = None,
    return_lse: Literal[True],
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def varlen_attention(
    query: Any,
    key: Any,
    value: Any,
    query_offsets: Any,
    key_offsets: Any,
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
    seed: Any = None,
    return_lse: bool = False,
) -> Any:
    """Computes :func:`fusewire.scaled_dot_product_attention` of sequences packed without padding.

    Sequence ``s`` has the queries ``query_offsets[s]:query_offsets[s + 1]`` and the keys
    ``key_offsets[s]:key_offsets[s + 1]``; its queries attend to its own keys only. Positions, and
    so the diagonal, are counted within each sequence.

    Args:
        query: ``(total_queries, heads, head_dim)``, an array or a tensor.
        key: ``(total_keys, kv_heads, head_dim)``, like `query`.
        value: ``(total_keys, kv_heads, value_dim)``, like `query`.
        query_offsets: ``(sequences + 1)`` whole numbers that rise from 0 to ``total_queries``
            (flash-attn's ``cu_seqlens_q``).
        key_offsets: ``(sequences + 1)``, likewise to ``total_keys``.
        attn_mask: Broadcastable to ``(sequences, heads, longest query_len, longest key_len)``, bool
            or floating, of whatever floating type; each sequence reads its first rows and columns.
        dropout_p: As in :func:`fusewire.scaled_dot_product_attention`; so are all arguments that
            are not told here.
        is_causal: See there.
        scale: See there.
        enable_gqa: See there.
        causal_alignment: See there.
        window: See there.
        softcap: See there.
        alibi_slopes: ``(heads)`` or ``(sequences, heads)``.
        sinks: ``(heads)`` or ``(sequences, heads)``.
        seed: See there.
        return_lse: Whether to return the logarithms too.

    Returns:
        ``(total_queries, heads, value_dim)``, of the kind of `query`; with `return_lse` also
        ``log(sum(exp(scores)))``, ``(heads, total_queries)``.

    Raises:
        TypeError: If an operand is neither array nor tensor, their types differ, or an option is
            nothing of its kind.
        ValueError: If shapes or offsets do not fit together, or an option is out of range.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> query = np.ones((3, 1, 4))
        >>> value = np.array([1.0, 3.0, 5.0]).reshape(3, 1, 1)
        >>> offsets = np.array([0, 2, 3])
        >>> fw.varlen_attention(query, query, value, offsets, offsets).ravel()
        array([2., 2., 5.])
    """
    head_dim = query.shape[-1] if getattr(query, "shape", ()) else 0
    options = resolve(head_dim, is_causal, causal_alignment, window, scale, softcap, dropout_p)
    options = options._replace(packed=True)
    given = (attn_mask, alibi_slopes, sinks, query_offsets, key_offsets)
    if is_tensor(query):
        from fusewire.ops.attention import autograd, composed

        extras = composed.Extras(*given, composed.as_seed(seed, options))
        return autograd.attention(query, key, value, options, enable_gqa, extras, return_lse)
    if isinstance(query, np.ndarray):
        from fusewire.ops.attention import array, reference

        arrays = reference.Extras(*given, array.as_seed(seed))
        return array.attention(query, key, value, options, enable_gqa, arrays, return_lse)
    raise TypeError(
        f"query must be a NumPy array or a PyTorch tensor, but is {type(query).__name__}"
    )
