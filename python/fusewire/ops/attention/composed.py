"""Attention composed of PyTorch's own operators, with every feature and every derivative.

It runs where our kernels do not (other devices, function transforms, softcap, dropout, masks that
want a gradient), and it is what a gradient is made of that shall be differentiated again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from fusewire.ops.attention.options import UNBOUNDED, Options


class Extras(NamedTuple):
    """Operands that may be missing."""

    attn_mask: torch.Tensor | None = None
    query_lengths: torch.Tensor | None = None
    key_lengths: torch.Tensor | None = None


def distances(
    query: torch.Tensor, key: torch.Tensor, bottom_right: bool, extras: Extras
) -> torch.Tensor:
    """How far each key lies behind each query's place on the diagonal.

    Returns:
        ``(batch or 1, 1, query_len, key_len)``.
    """
    query_len, key_len = query.shape[-2], key.shape[-2]
    places = torch.arange(query_len, device=query.device)[:, None]
    distance = (torch.arange(key_len, device=query.device) - places)[None, None]
    if bottom_right:
        queries = query_len if extras.query_lengths is None else extras.query_lengths
        keys = key_len if extras.key_lengths is None else extras.key_lengths
        diagonal = torch.as_tensor(keys - queries, device=query.device)
        distance = distance - diagonal.reshape(-1, 1, 1, 1)
    return distance


def with_alibi(
    slopes: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    bottom_right: bool,
    extras: Extras,
) -> torch.Tensor:
    """The mask with ``-slope * |distance|`` added, as a float mask."""
    distance = distances(query, key, bottom_right, extras).abs()
    bias = -slopes.to(query.dtype)[:, None, None] * distance
    mask = extras.attn_mask
    if mask is None:
        return bias
    return bias.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else bias + mask


def with_sinks(
    output: torch.Tensor, lse: torch.Tensor, sinks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The results as if every query of a head had one more key, of that score and a value of 0."""
    scores = sinks.to(lse.dtype)[:, None]
    output = output * torch.sigmoid(lse - scores).unsqueeze(-1).to(output.dtype)
    return output, torch.logaddexp(lse, scores)


def _hidden(
    query: torch.Tensor, key: torch.Tensor, options: Options, extras: Extras
) -> torch.Tensor | None:
    """Where a query does not reach a key, to be broadcast; None where every one does."""
    hidden: list[torch.Tensor] = []
    if not options.is_full:
        distance = distances(query, key, options.bottom_right, extras)
        if options.left != UNBOUNDED:
            hidden.append(distance < -options.left)
        if options.right != UNBOUNDED:
            hidden.append(distance > options.right)
    if extras.query_lengths is not None:
        places = torch.arange(query.shape[-2], device=query.device)
        hidden.append((places >= extras.query_lengths[:, None])[:, None, :, None])
    if extras.key_lengths is not None:
        places = torch.arange(key.shape[-2], device=query.device)
        hidden.append((places >= extras.key_lengths[:, None])[:, None, None, :])
    if extras.attn_mask is not None:
        mask = extras.attn_mask
        hidden.append(~mask if mask.dtype == torch.bool else mask == -torch.inf)
    if not hidden:
        return None
    together = hidden[0]
    for more in hidden[1:]:
        together = together | more
    return together


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    query_lengths: torch.Tensor | None,
    key_lengths: torch.Tensor | None,
    *,
    options: Options,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output and the logarithms of the sums of exponentials.

    Operands have the shapes of :func:`fusewire.scaled_dot_product_attention` with exactly one
    batch dimension.
    """
    extras = Extras(attn_mask, query_lengths, key_lengths)
    group = query.shape[1] // key.shape[1] if key.shape[1] else 1
    if group > 1:
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = (query * options.scale) @ key.transpose(-1, -2)
    if options.softcap is not None:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        scores = scores + attn_mask
    hidden = _hidden(query, key, options, extras)
    if hidden is None:
        lse = scores.logsumexp(-1)
        probabilities = scores.softmax(-1)
    else:
        # A query without keys would give 0 / 0; its scores are set aside, and so its gradients.
        lonely = hidden.all(-1, keepdim=True)
        scores = scores.masked_fill(hidden, -torch.inf).masked_fill(lonely, 0)
        lse = scores.logsumexp(-1).masked_fill(lonely.squeeze(-1), -torch.inf)
        probabilities = scores.softmax(-1).masked_fill(lonely, 0)
    if options.dropout_p > 0:
        probabilities = functional.dropout(probabilities, options.dropout_p)
    return probabilities @ value, lse


def is_plain(query: torch.Tensor, key: torch.Tensor, options: Options, extras: Extras) -> bool:
    """Whether PyTorch's own attention computes the same output."""
    causal = (options.left, options.right) == (UNBOUNDED, 0)
    aligned = not options.bottom_right or query.shape[-2] == key.shape[-2]
    return (
        options.softcap is None
        and extras.query_lengths is None
        and extras.key_lengths is None
        and (options.is_full or (causal and aligned and extras.attn_mask is None))
    )


def plain(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    options: Options,
) -> torch.Tensor:
    """PyTorch's own attention; only for what :func:`is_plain` lets through."""
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask,
        options.dropout_p,
        is_causal=not options.is_full,
        scale=options.scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
