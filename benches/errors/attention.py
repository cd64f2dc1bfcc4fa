"""Random attention: lengths, heads, layouts, masks and every option that PyTorch can say."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional

import fusewire as fw
from benches.errors.trial import Draw, Named, Trial

MOST_SCORES = 1 << 22
"""Queries times keys of all heads and batch rows."""
COMMON = (16, 32, 64, 80, 128)


def _laid_out(draw: Draw, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Contiguous; heads after lengths, as a projection leaves them; cut out of more; or turned."""
    batch, heads, length, width = shape
    layout = draw.one_of(*("contiguous", "transposed", "cut") * 5, "turned")
    if layout == "contiguous":
        return draw.normal(*shape).to(dtype)
    if layout == "turned":
        return draw.normal(batch, heads, width, length).to(dtype).mT
    rows = draw.normal(batch, length, heads, width if layout == "transposed" else 3 * width)
    return rows.to(dtype)[..., :width].transpose(1, 2)


def _visible(causal: str, window: tuple[int, int] | None, sizes: tuple[int, int]) -> torch.Tensor:
    """What causal attention and a window leave of the scores."""
    query_len, key_len = sizes
    shift = key_len - query_len if causal == "bottom_right" else 0
    distance = torch.arange(key_len) - torch.arange(query_len)[:, None] - shift
    visible = torch.ones(sizes, dtype=torch.bool)
    if causal != "none":
        visible &= distance <= 0
    if window is not None:
        visible &= (distance >= -window[0]) & (distance <= window[1])
    return visible


def _composed(
    given: Named, mask: torch.Tensor | None, scale: float | None, softcap: float
) -> torch.Tensor:
    """PyTorch's fused attention has no softcap; this is how its models write it."""
    query, key, value = given["query"], given["key"], given["value"]
    shared = query.shape[1] // key.shape[1]
    key, value = (operand.repeat_interleave(shared, 1) for operand in (key, value))
    scores = query @ key.mT * (scale or query.shape[-1] ** -0.5)
    scores = torch.tanh(scores / softcap) * softcap
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1) @ value


def trial(draw: Draw, dtype: torch.dtype) -> Trial:
    query_len = draw.size(2000)
    key_len = query_len if draw.happens(0.6) else draw.size(2000)
    batch, kv_heads, shared = draw.one_of(1, 2, 4), draw.size(4), draw.one_of(1, 1, 1, 2, 4)
    while batch * kv_heads * shared * query_len * key_len > MOST_SCORES and batch > 1:
        batch //= 2
    while batch * kv_heads * shared * query_len * key_len > MOST_SCORES and kv_heads > 1:
        kv_heads //= 2
    heads = kv_heads * shared
    head_dim = draw.one_of(*COMMON) if draw.happens(0.5) else draw.size(256)
    value_dim = draw.size(256) if draw.happens(0.1) else head_dim
    causal = draw.one_of("none", "top_left", "bottom_right")
    window = (draw.size(300) - 1, draw.size(300) - 1) if draw.happens(0.15) else None
    kind = draw.one_of("none", "none", "none", "bool", "float", "learned")
    softcap = draw.one_of(5.0, 30.0) if draw.happens(0.1) else None
    scale = draw.one_of(0.05, 0.3) if draw.happens(0.1) else None
    sharp = draw.happens(0.2)

    # Queries that see nothing have no error to compare.
    if not _visible(causal, window, (query_len, key_len)).any(-1).all():
        query_len = min(query_len, key_len)
    visible = _visible(causal, window, (query_len, key_len))
    operands = {
        "query": _laid_out(draw, dtype, batch, heads, query_len, head_dim),
        "key": _laid_out(draw, dtype, batch, kv_heads, key_len, head_dim),
        "value": _laid_out(draw, dtype, batch, kv_heads, key_len, value_dim),
    }
    if sharp:
        operands["query"] = operands["query"] * 4
    shape = (draw.one_of(1, batch), draw.one_of(1, heads), query_len, key_len)
    mask = None
    if kind == "bool":
        nearest = visible.int().argmax(-1, keepdim=True).expand(*shape[:3], 1)
        mask = (draw.normal(*shape) > -0.5).scatter(-1, nearest, True)
    elif kind in ("float", "learned"):
        mask = draw.normal(*shape).to(dtype)
    if kind == "learned":
        operands["bias"] = mask
    grad_output = draw.normal(batch, heads, query_len, value_dim).to(dtype)
    limited = causal == "bottom_right" or window is not None
    plain = causal == "top_left" and not limited and kind == "none" and softcap is None
    # What PyTorch's fused operator refuses it composes, and keeps the probabilities for gradients.
    fused = softcap is None and kind != "learned" and value_dim == head_dim
    fused = fused and all(operands[name].stride(-1) == 1 for name in ("query", "key", "value"))
    rival = "fused" if fused else "composed"

    def ours(given: Named) -> Named:
        output = fw.scaled_dot_product_attention(
            given["query"],
            given["key"],
            given["value"],
            given.get("bias", mask),
            is_causal=causal != "none",
            causal_alignment="bottom_right" if causal == "bottom_right" else "top_left",
            window=window,
            softcap=softcap,
            scale=scale,
            enable_gqa=shared > 1,
        )
        return {"output": output}

    def theirs(given: Named) -> Named:
        own: Any = given.get("bias", mask)
        if own is not None and own.dtype != torch.bool:
            own = own.to(given["query"].dtype)
        if not plain and not visible.all():
            if own is None:
                own = visible
            elif own.dtype == torch.bool:
                own = own & visible
            else:
                own = own.masked_fill(~visible, -torch.inf)
        if softcap is not None:
            return {"output": _composed(given, own, scale, softcap)}
        output = functional.scaled_dot_product_attention(
            given["query"],
            given["key"],
            given["value"],
            own,
            is_causal=plain,
            scale=scale,
            enable_gqa=shared > 1,
        )
        return {"output": output}

    return Trial(
        told=f"{batch}x{heads} over {kv_heads}x{query_len} to {key_len}x{head_dim}"
        + f" values of {value_dim}" * (value_dim != head_dim)
        + f" causal {causal}, mask {kind}, window {window}, softcap {softcap}, scale {scale}"
        + " sharp" * sharp,
        options=(
            f"causal {causal}",
            f"mask {kind}",
            f"PyTorch's {rival}",
            f"{'few' if key_len < 16 else 'many'} keys, PyTorch's {rival}",
            "1 to 3 queries" if query_len < 4 else "more queries",
            "small heads" if head_dim < 16 else "large heads" if head_dim > 80 else "usual heads",
            *(["grouped"] if shared > 1 else []),
            *(["window"] if window else []),
            *(["softcap"] if softcap else []),
            *(["sharp"] if sharp else []),
            *(["values of another size"] if value_dim != head_dim else []),
        ),
        operands=operands,
        sources=batch * heads * int(visible.sum()),
        grad_outputs=lambda _: {"output": grad_output},
        ours=ours,
        theirs=theirs,
    )
