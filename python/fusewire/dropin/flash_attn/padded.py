"""Batches whose sequences are equally long."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from fusewire.ops.attention import scaled_dot_product_attention

Probabilities = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""The output, the logarithms, and a tensor of no probabilities: no kernel keeps them."""

GROUPED: dict[str, Any] = {"enable_gqa": True, "causal_alignment": "bottom_right"}
"""What flash-attn's functions do without being asked."""


def check(form: str, **operands: object) -> None:
    """Raises where an operand is no tensor with the dimensions that `form` names."""
    for name, operand in operands.items():
        if not isinstance(operand, torch.Tensor):
            raise TypeError(f"{name} must be a PyTorch tensor, but is {type(operand).__name__}")
        if operand.dim() != form.count(",") + 1:
            raise ValueError(f"{name} must be {form}, but has shape {list(operand.shape)}")


def check_types(q: torch.Tensor, **operands: torch.Tensor) -> None:
    """Raises where an operand is of another type than the queries, or these are not floating."""
    if not q.is_floating_point():
        raise TypeError(f"q must be of a floating type, but is {q.dtype}")
    for name, operand in operands.items():
        if operand.dtype != q.dtype:
            expected, told = (str(each.dtype).removeprefix("torch.") for each in (q, operand))
            raise TypeError(f"{name} must be {expected} like q, but is {told}")


def unpacked(name: str, packed: torch.Tensor, form: str, count: int) -> tuple[torch.Tensor, ...]:
    """The `count` operands in the last dimension but two."""
    check(form, **{name: packed})
    if packed.shape[-3] != count:
        raise ValueError(f"{name} must be {form}, but has shape {list(packed.shape)}")
    return packed.unbind(-3)


def check_fit(q: torch.Tensor, **operands: torch.Tensor) -> None:
    """Raises where keys and values, which lie alike, do not fit the queries or each other."""
    check_types(q, **operands)
    (key_name, k), (value_name, v) = operands.items()
    (heads, head_dim), (kv_heads, key_dim) = q.shape[-2:], k.shape[-2:]
    if key_dim != head_dim:
        raise ValueError(f"{key_name} must have head_dim {head_dim} like q, but has {key_dim}")
    if v.shape[:-1] != k.shape[:-1]:
        shapes = f"{list(v.shape)} and {list(k.shape)}"
        raise ValueError(
            f"{value_name} must have the shape of {key_name} but for its last dimension, but they "
            f"have shapes {shapes}"
        )
    if not kv_heads or heads % kv_heads:
        raise ValueError(
            f"the heads of q must be a multiple of those of {key_name}, but there are {heads} and "
            f"{kv_heads}"
        )


def score_options(
    batch: int,
    heads: int,
    *,
    softmax_scale: float | None,
    causal: bool,
    window_size: tuple[int, int],
    softcap: float,
    alibi_slopes: torch.Tensor | None,
    dropout_p: float = 0.0,
) -> dict[str, Any]:
    """What makes scores of products, checked, under the names that our operators have for it."""
    pair = isinstance(window_size, (tuple, list)) and len(window_size) == 2
    if not pair or not all(hasattr(side, "__index__") for side in window_size):
        raise TypeError(f"window_size must be a pair of whole numbers, but is {window_size!r}")
    numbers = {"softcap": softcap, "dropout_p": dropout_p}
    if softmax_scale is not None:
        numbers["softmax_scale"] = softmax_scale
    for name, number in numbers.items():
        if not hasattr(number, "__float__"):
            raise TypeError(f"{name} must be a number, but is {number!r}")
    if not math.isfinite(softcap):
        raise ValueError(f"softcap must be finite, and 0 for none, but is {softcap}")
    if alibi_slopes is not None:
        if not isinstance(alibi_slopes, torch.Tensor):
            told = type(alibi_slopes).__name__
            raise TypeError(f"alibi_slopes must be a PyTorch tensor, but is {told}")
        if tuple(alibi_slopes.shape) not in ((heads,), (1, heads), (batch, heads)):
            raise ValueError(
                f"alibi_slopes must have shape {[heads]} or {[batch, heads]}, but has "
                f"{list(alibi_slopes.shape)}"
            )
    left, right = window_size
    return {
        "is_causal": causal,
        "scale": softmax_scale,
        "window": (max(left, -1), max(right, -1)),
        "softcap": softcap if softcap > 0 else None,
        "alibi_slopes": alibi_slopes,
        **({"dropout_p": dropout_p} if dropout_p else {}),
    }


def attend(
    attention: Callable[..., Any], *operands: torch.Tensor, return_lse: bool, **options: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The output of one of our operators; asked for, the logarithms.

    Those are plus infinity where a query sees no key.
    """
    results = attention(*operands, return_lse=return_lse, **options)
    output, lse = results if return_lse else (results, None)
    return output, None if lse is None else lse.masked_fill(lse == -torch.inf, torch.inf)


def attend_padded(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The same of ``(batch, length, heads, dim)``; logarithms are ``(batch, heads, query_len)``."""
    heads_first = (operand.transpose(1, 2) for operand in (q, k, v))
    output, lse = attend(scaled_dot_product_attention, *heads_first, **GROUPED, **options)
    return length_first(output), lse


def length_first(output: torch.Tensor) -> torch.Tensor:
    """``(batch, heads, length, dim)`` as flash-attn gives it, side by side in memory."""
    return output.transpose(1, 2).contiguous()


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,  # noqa: ARG001
    return_attn_probs: bool = False,
) -> torch.Tensor | Probabilities:
    """Attends; see `flash_attn.flash_attn_func`.

    Args:
        q: ``(batch, query_len, heads, head_dim)``.
        k: ``(batch, key_len, kv_heads, head_dim)``; `heads` is a multiple of `kv_heads`.
        v: ``(batch, key_len, kv_heads, value_dim)``.
        dropout_p: Probability with which a weight is dropped; 0 in evaluation.
        softmax_scale: Factor of the scores; ``1 / sqrt(head_dim)`` if None.
        causal: Whether query i sees keys up to ``i + key_len - query_len`` only.
        window_size: Keys that a query sees ``(before, behind)`` that one; -1 is without bound.
        softcap: Bound of the scores; 0 for none.
        alibi_slopes: ``(heads)`` or ``(batch, heads)``, float32: ``slope * |i + key_len -
            query_len - j|`` is taken off the scores.
        deterministic: Without effect: our gradients always are.
        return_attn_probs: Whether to return the logarithms, and an empty tensor for the
            probabilities, too.

    Returns:
        ``(batch, query_len, heads, value_dim)``, contiguous; a query that sees no key gets 0. Asked
        for, also ``log(sum(exp(scores)))``, ``(batch, heads, query_len)``, and a tensor without
        numbers.

    Raises:
        TypeError: If an operand is no tensor or of another type than q, or an option no number.
        ValueError: If shapes do not fit together, or an option is out of range.

    Example:
        >>> import torch
        >>> from fusewire.dropin.flash_attn import flash_attn_func
        >>> q, k = torch.ones(2, 3, 4, 8), torch.ones(2, 5, 2, 8)
        >>> flash_attn_func(q, k, k, causal=True).shape
        torch.Size([2, 3, 4, 8])
    """
    check("(batch, length, heads, dim)", q=q, k=k, v=v)
    if not len(q) == len(k) == len(v):
        raise ValueError(
            f"q, k and v must have one batch size, but have {len(q)}, {len(k)}, {len(v)}"
        )
    check_fit(q, k=k, v=v)
    options = score_options(
        q.shape[0],
        q.shape[2],
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=window_size,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        dropout_p=dropout_p,
    )
    output, lse = attend_padded(q, k, v, return_lse=return_attn_probs, **options)
    return output if lse is None else (output, lse, q.new_empty(0))


def flash_attn_qkvpacked_func(
    qkv: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor | Probabilities:
    """:func:`flash_attn_func` of ``(batch, length, 3, heads, head_dim)``."""
    q, k, v = unpacked("qkv", qkv, "(batch, length, 3, heads, head_dim)", 3)
    return flash_attn_func(
        q,
        k,
        v,
        dropout_p,
        softmax_scale,
        causal,
        window_size,
        softcap,
        alibi_slopes,
        deterministic,
        return_attn_probs,
    )


def flash_attn_kvpacked_func(
    q: torch.Tensor,
    kv: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor | Probabilities:
    """:func:`flash_attn_func`, keys and values ``(batch, key_len, 2, kv_heads, head_dim)``."""
    k, v = unpacked("kv", kv, "(batch, key_len, 2, kv_heads, head_dim)", 2)
    return flash_attn_func(
        q,
        k,
        v,
        dropout_p,
        softmax_scale,
        causal,
        window_size,
        softcap,
        alibi_slopes,
        deterministic,
        return_attn_probs,
    )
