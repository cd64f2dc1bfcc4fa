"""Attention composed of PyTorch's own operators, with every feature and every derivative.

It runs where our kernels do not (other devices, function transforms), and it is what a gradient is
made of that shall be differentiated again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from fusewire.ops.attention import fit
from fusewire.ops.attention.dropout import dropped, kept_scale
from fusewire.ops.attention.options import NO_CAP, UNBOUNDED, Options
from fusewire.ops.door import check_seed


class Extras(NamedTuple):
    """Operands that may be missing, in the order in which the kernels take them.

    Masks have four dimensions, numbers of heads two, of which any may be 1.
    """

    attn_mask: torch.Tensor | None = None
    alibi_slopes: torch.Tensor | None = None
    sinks: torch.Tensor | None = None
    query_lengths: torch.Tensor | None = None
    key_lengths: torch.Tensor | None = None
    seed: torch.Tensor | None = None


def as_seed(seed: int | torch.Tensor | None, options: Options) -> torch.Tensor | None:
    """The seed of dropout as a tensor, where it is given and needed."""
    if seed is None:
        return None
    if not isinstance(seed, torch.Tensor):
        check_seed(seed)
    elif seed.is_floating_point() or seed.is_complex():
        raise ValueError(f"seed must be a whole number of 64 bits with its sign, but is {seed}")
    return torch.as_tensor(seed, dtype=torch.int64) if options.dropout_p else None


def _distances(
    query: torch.Tensor, key: torch.Tensor, options: Options, extras: Extras
) -> torch.Tensor:
    """How far each key lies behind each query's place on the diagonal.

    Returns:
        ``(batch or 1, 1, query_len, key_len)``.
    """
    query_len, key_len = query.shape[-2], key.shape[-2]
    places = torch.arange(query_len, device=query.device)[:, None]
    distance = (torch.arange(key_len, device=query.device) - places)[None, None]
    if options.bottom_right:
        queries = query_len if extras.query_lengths is None else extras.query_lengths
        keys = key_len if extras.key_lengths is None else extras.key_lengths
        diagonal = torch.as_tensor(keys - queries, device=query.device)
        distance = distance - diagonal.reshape(-1, 1, 1, 1)
    return distance


def _hidden(
    query: torch.Tensor, key: torch.Tensor, options: Options, extras: Extras
) -> torch.Tensor | None:
    """Where a query does not reach a key, to be broadcast; None where every one does."""
    hidden: list[torch.Tensor] = []
    if not options.is_full:
        distance = _distances(query, key, options, extras)
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
    *others: torch.Tensor | None,
    options: Options,
    first_sequence: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output and the logarithms of the sums of exponentials.

    Operands have the shapes of :func:`fusewire.scaled_dot_product_attention` with exactly one
    batch dimension, or with `options.packed` those of :func:`fusewire.varlen_attention`.
    Operands of 16 bits on the CPU are widened, as our kernels do.
    """
    extras = Extras(*others)
    if query.is_cpu and query.dtype in (torch.bfloat16, torch.float16):
        output, lse = attention(
            query.float(),
            key.float(),
            value.float(),
            *(x.float() if x is not None and x.is_floating_point() else x for x in extras),
            options=options,
            first_sequence=first_sequence,
        )
        return output.to(query.dtype), lse
    if options.packed:
        return _by_sequence(query, key, value, extras, options)
    group = query.shape[1] // key.shape[1] if key.shape[1] else 1
    if group > 1:
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = (query * options.scale) @ key.transpose(-1, -2)
    if options.softcap != NO_CAP:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    if extras.alibi_slopes is not None:
        distance = _distances(query, key, options, extras).abs()
        scores = scores - extras.alibi_slopes[:, :, None, None] * distance
    if extras.attn_mask is not None and extras.attn_mask.dtype != torch.bool:
        scores = scores + extras.attn_mask
    hidden = _hidden(query, key, options, extras)
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    lonely = None
    if extras.sinks is not None:
        # One more key, whose value is 0.
        sink = extras.sinks[:, :, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sink], -1)
    elif hidden is not None:
        # A query without keys would give 0 / 0; its scores are set aside, and so its gradients.
        lonely = hidden.all(-1, keepdim=True)
        scores = scores.masked_fill(lonely, 0)
    lse, probabilities = scores.logsumexp(-1), scores.softmax(-1)
    if extras.sinks is not None:
        probabilities = probabilities[..., :-1]
    if lonely is not None:
        lse = lse.masked_fill(lonely.squeeze(-1), -torch.inf)
        probabilities = probabilities.masked_fill(lonely, 0)
    if extras.seed is not None:
        lost = _dropped(probabilities, extras.seed, options, first_sequence)
        probabilities = (probabilities * kept_scale(options.dropout_p)).masked_fill(lost, 0)
    return probabilities @ value, lse


def _dropped(
    probabilities: torch.Tensor, seed: torch.Tensor, options: Options, first_sequence: int
) -> torch.Tensor:
    """Which probabilities dropout takes away."""
    sequences, heads, queries, keys = (
        torch.arange(size, device=seed.device).view(-1, *[1] * behind)
        for size, behind in zip(probabilities.shape, (3, 2, 1, 0), strict=True)
    )
    places = sequences + first_sequence, heads, queries
    lost: torch.Tensor = dropped(options.dropout_p, seed.reshape(1, 1, 1, 1), places, keys)
    return lost


def _by_sequence(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    extras: Extras,
    options: Options,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Packed sequences, one after another."""
    outputs = [query.new_empty(0, query.shape[1], value.shape[-1])]
    logarithms = [query.new_empty(query.shape[1], 0)]
    query_ends, key_ends = fit.starts_of(extras, query.shape[0], key.shape[0])
    lengths = fit.longest(query_ends), fit.longest(key_ends)
    fit.check_added(extras, (len(query_ends) - 1, query.shape[1], *lengths))

    def part(operand: torch.Tensor, ends: list[int], sequence: int) -> torch.Tensor:
        return operand[ends[sequence] : ends[sequence + 1]].transpose(0, 1)[None]

    def own(numbers: torch.Tensor | None, sequence: int) -> torch.Tensor | None:
        if numbers is None or numbers.shape[0] == 1:
            return numbers
        return numbers[sequence : sequence + 1]

    for sequence in range(len(query_ends) - 1):
        queries = part(query, query_ends, sequence)
        keys = part(key, key_ends, sequence)
        mask = own(extras.attn_mask, sequence)
        if mask is not None:
            rows = queries.shape[-2] if mask.shape[-2] > 1 else 1
            columns = keys.shape[-2] if mask.shape[-1] > 1 else 1
            mask = mask[..., :rows, :columns]
        output, lse = attention(
            queries,
            keys,
            part(value, key_ends, sequence),
            mask,
            own(extras.alibi_slopes, sequence),
            own(extras.sinks, sequence),
            None,
            None,
            extras.seed,
            options=options._replace(packed=False),
            first_sequence=sequence,
        )
        outputs.append(output[0].transpose(0, 1))
        logarithms.append(lse[0])
    return torch.cat(outputs), torch.cat(logarithms, -1)


def is_plain(query: torch.Tensor, key: torch.Tensor, options: Options, extras: Extras) -> bool:
    """Whether PyTorch's own attention computes the same output."""
    causal = (options.left, options.right) == (UNBOUNDED, 0)
    aligned = not options.bottom_right or query.shape[-2] == key.shape[-2]
    return (
        not options.packed
        and options.softcap == NO_CAP
        and all(extra is None for extra in extras[1:])
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
        enable_gqa=bool(query.shape[1] != key.shape[1]),
    )
