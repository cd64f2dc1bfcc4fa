"""Generation: queries against a cache of keys and values, which new ones are written into."""

from __future__ import annotations

from typing import Any

import torch

from fusewire.dropin.flash_attn.padded import attend, attend_padded, check
from fusewire.ops.attention import paged_attention

_FEW = 8
"""Queries up to which pages are read where they lie, for each query anew."""


def flash_attn_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor | None = None,
    v: torch.Tensor | None = None,
    rotary_cos: torch.Tensor | None = None,
    rotary_sin: torch.Tensor | None = None,
    cache_seqlens: int | torch.Tensor | None = None,
    cache_batch_idx: torch.Tensor | None = None,
    cache_leftpad: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: torch.Tensor | None = None,
    num_splits: int = 0,  # noqa: ARG001
    return_softmax_lse: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Attends to a cache; see `flash_attn.flash_attn_with_kvcache`. It has no gradient.

    Args:
        q: ``(batch, query_len, heads, head_dim)``.
        k_cache: ``(cache rows, cache_len, kv_heads, head_dim)``, or with `block_table` pages,
            ``(pages, page_len, kv_heads, head_dim)``; new keys are written into it.
        v_cache: Like `k_cache`, with value_dim.
        k: ``(batch, new_len, kv_heads, head_dim)``, new keys; none if None.
        v: Like `k`, with value_dim.
        rotary_cos: ``(positions, rotary_dim / 2)``: turns new keys and queries by their places.
        rotary_sin: Like `rotary_cos`.
        cache_seqlens: How many keys each row of the cache holds, without the new ones: a number or
            ``(batch)``; as many as there is room for if None.
        cache_batch_idx: ``(batch)``, each row's place in the cache.
        cache_leftpad: ``(batch)``, where each row of the cache begins.
        block_table: ``(batch, pages of the longest)``, the pages of each row.
        softmax_scale: As for :func:`flash_attn_func`; so are the others that are not told here.
        causal: See there, with the keys that each row holds after the update.
        window_size: See there.
        softcap: See there.
        rotary_interleaved: Whether neighbours are turned together; else halves.
        alibi_slopes: See there.
        num_splits: Without effect: our kernels split by themselves.
        return_softmax_lse: Whether to return the logarithms too.

    Returns:
        ``(batch, query_len, heads, value_dim)``; asked for, also ``(batch, heads, query_len)``.

    Raises:
        ValueError: If new keys come without values or lengths, or the cache has no room for them;
            if there is a rotation and there are no new keys.

    Example:
        >>> import torch
        >>> from fusewire.dropin.flash_attn import flash_attn_with_kvcache
        >>> keys, values = torch.zeros(1, 8, 2, 4), torch.zeros(1, 8, 2, 4)
        >>> new = torch.ones(1, 1, 2, 4)
        >>> flash_attn_with_kvcache(new, keys, values, new, new, cache_seqlens=0).sum()
        tensor(8.)
        >>> keys.sum()
        tensor(8.)
    """
    with torch.no_grad():
        check("(batch, length, heads, dim)", q=q, k_cache=k_cache, v_cache=v_cache)
        batch = q.shape[0]
        cache = _Cache(k_cache, v_cache, batch, cache_batch_idx, block_table)
        held = _lengths(cache_seqlens, cache.room, batch, q.device)
        first = torch.zeros_like(held) if cache_leftpad is None else cache_leftpad.long()
        if k is not None and (v is None or cache_seqlens is None):
            raise ValueError("new keys need values and cache_seqlens beside them")
        if rotary_cos is not None or rotary_sin is not None:
            if k is None or rotary_cos is None or rotary_sin is None:
                raise ValueError("a rotation needs rotary_cos, rotary_sin and new keys")
            turn = _Rotation(rotary_cos, rotary_sin, rotary_interleaved)
            moves = causal or tuple(window_size) != (-1, -1)
            q = turn(q, held - first, moves)
            k = turn(k, held - first, moves=True)
        if k is not None and v is not None:
            check("(batch, new_len, kv_heads, dim)", k=k, v=v)
            cache.append(k, v, held)
            held = held + k.shape[1]
        score: dict[str, Any] = {
            "softmax_scale": softmax_scale,
            "causal": causal,
            "window_size": window_size,
            "softcap": softcap,
            "alibi_slopes": alibi_slopes,
            "return_lse": return_softmax_lse,
        }
        if block_table is not None and cache_leftpad is None and q.shape[1] <= _FEW:
            pages = (k_cache, v_cache, block_table.int(), held)
            output, lse = attend(paged_attention, q.transpose(1, 2), *pages, **score)
            output = output.transpose(1, 2)
        else:
            keys, values = cache.rows(first if cache_leftpad is not None else None)
            output, lse = attend_padded(q, keys, values, key_lengths=held - first, **score)
    return output if lse is None else (output, lse)


def _lengths(
    given: int | torch.Tensor | None, room: int, batch: int, device: torch.device
) -> torch.Tensor:
    """The lengths of all rows, ``(batch)``."""
    if isinstance(given, torch.Tensor):
        if given.shape != (batch,) or given.is_floating_point():
            told = f"{list(given.shape)} and {given.dtype}"
            raise ValueError(f"cache_seqlens must be {batch} whole numbers, but are {told}")
        return given.long()
    return torch.full((batch,), room if given is None else given, device=device)


class _Cache:
    """Keys and values, in rows or in pages."""

    def __init__(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        batch: int,
        places: torch.Tensor | None,
        pages: torch.Tensor | None,
    ) -> None:
        self.keys, self.values = keys, values
        self._places = None if places is None else places.long()
        self._pages = None if pages is None else pages.long()
        self._batch = batch
        self.room = keys.shape[1] * (1 if self._pages is None else self._pages.shape[1])

    def append(self, keys: torch.Tensor, values: torch.Tensor, held: torch.Tensor) -> None:
        """Writes new keys and values behind those that are held."""
        for name, new, kept in (("k", keys, self.keys), ("v", values, self.values)):
            if len(new) != self._batch or new.shape[2:] != kept.shape[2:]:
                expected = [self._batch, keys.shape[1], *kept.shape[2:]]
                raise ValueError(f"{name} must have shape {expected}, but has {list(new.shape)}")
        positions = held[:, None] + torch.arange(keys.shape[1], device=held.device)
        if positions.numel() and int(positions.max()) >= self.room:
            raise ValueError(
                f"the cache has room for {self.room} keys, but {int(positions.max()) + 1} are asked"
            )
        if self._pages is not None:
            page_len = self.keys.shape[1]
            rows, positions = self._pages.gather(1, positions // page_len), positions % page_len
        elif self._places is not None:
            rows = self._places[:, None]
        else:
            rows = torch.arange(self._batch, device=held.device)[:, None]
        self.keys[rows, positions] = keys.to(self.keys.dtype)
        self.values[rows, positions] = values.to(self.values.dtype)

    def rows(self, first: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of each row of the batch, from `first` on."""
        keys, values = self.keys, self.values
        if self._pages is not None:
            # What the table says beyond a row's length means nothing.
            pages = self._pages.clamp(0, len(keys) - 1)
            keys, values = keys[pages].flatten(1, 2), values[pages].flatten(1, 2)
        elif self._places is not None:
            keys, values = keys[self._places], values[self._places]
        if first is not None:
            positions = first[:, None] + torch.arange(self.room, device=keys.device)
            rows = torch.arange(self._batch, device=keys.device)[:, None]
            positions = positions.clamp(max=self.room - 1)
            keys, values = keys[rows, positions], values[rows, positions]
        return keys, values


class _Rotation:
    """Rotary position embedding."""

    def __init__(self, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool) -> None:
        self._cos, self._sin, self._interleaved = cos, sin, interleaved

    def __call__(self, x: torch.Tensor, first: torch.Tensor, moves: bool) -> torch.Tensor:
        """Turns ``(batch, length, heads, head_dim)`` whose positions begin at `first`.

        Without `moves`, all of a row are at the same position.
        """
        steps = torch.arange(x.shape[1], device=x.device) * int(moves)
        positions = first[:, None] + steps
        if positions.numel() and int(positions.max()) >= len(self._cos):
            raise ValueError(
                f"rotary_cos and rotary_sin must have a row for each place up to "
                f"{int(positions.max())}, but have {len(self._cos)}"
            )
        cos, sin = (table[positions][:, :, None] for table in (self._cos, self._sin))
        turned, kept = x.split([2 * cos.shape[-1], x.shape[-1] - 2 * cos.shape[-1]], -1)
        if x.dtype in (torch.bfloat16, torch.float16):
            turned, cos, sin = turned.float(), cos.float(), sin.float()
        if self._interleaved:
            a, b = turned.unflatten(-1, (-1, 2)).unbind(-1)
            turned = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
        else:
            a, b = turned.chunk(2, -1)
            turned = torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
        return torch.cat([turned.to(x.dtype), kept], -1)
