"""Generation: queries against a cache of keys and values, which new ones are written into."""

from __future__ import annotations

import torch

from fusewire.dropin.flash_attn.padded import (
    attend,
    attend_padded,
    check,
    check_fit,
    check_types,
    length_first,
    score_options,
)
from fusewire.dropin.flash_attn.pages import WHOLE, check_table, check_within, known_pages
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
        ``(batch, query_len, heads, value_dim)``, contiguous; asked for, also the logarithms
        ``(batch, heads, query_len)``.

    Raises:
        TypeError: If an operand is no tensor or of another type than q, or an option no number.
        ValueError: If new keys come without values or lengths, or the cache has no room for them;
            if there is a rotation and there are no new keys; if shapes do not fit together; on the
            CPU also if a length, a place or a page in use does not exist. The cache is as it was.

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
        check("(batch, length, heads, dim)", q=q)
        batch, query_len, heads, _ = q.shape
        cache = _Cache(k_cache, v_cache, batch, cache_batch_idx, block_table)
        check_fit(q, k_cache=k_cache, v_cache=v_cache)
        options = score_options(
            batch,
            heads,
            softmax_scale=softmax_scale,
            causal=causal,
            window_size=window_size,
            softcap=softcap,
            alibi_slopes=alibi_slopes,
        )
        if (k is None) != (v is None) or (k is not None and cache_seqlens is None):
            raise ValueError("new keys need values and cache_seqlens beside them, and values keys")
        if k is not None and v is not None:
            cache.check_new(k=k, v=v)
        held = _lengths(cache_seqlens, cache.room, batch, q.device)
        first = torch.zeros_like(held)
        if cache_leftpad is not None:
            first = _whole("cache_leftpad", cache_leftpad, batch)
            check_within("cache_leftpad", first, held)
        if rotary_cos is not None or rotary_sin is not None:
            if k is None or rotary_cos is None or rotary_sin is None:
                raise ValueError("a rotation needs rotary_cos, rotary_sin and new keys")
            turn = _Rotation(rotary_cos, rotary_sin, rotary_interleaved, q.shape[-1])
            moves = causal or options["window"] != (-1, -1)
            q = turn(q, held - first, moves)
            k = turn(k, held - first, moves=True)
        if k is not None and v is not None:
            cache.append(k, v, held)
            held = held + k.shape[1]
        if block_table is not None and cache_leftpad is None and query_len <= _FEW:
            pages = (k_cache, v_cache, block_table.int(), held)
            output, lse = attend(
                paged_attention, q.transpose(1, 2), *pages, return_lse=return_softmax_lse, **options
            )
            output = length_first(output)
        else:
            keys, values = cache.rows(first if cache_leftpad is not None else None, held)
            output, lse = attend_padded(
                q, keys, values, key_lengths=held - first, return_lse=return_softmax_lse, **options
            )
    return output if lse is None else (output, lse)


def _whole(name: str, given: torch.Tensor, batch: int) -> torch.Tensor:
    """A number for each row of the batch."""
    if not isinstance(given, torch.Tensor):
        raise TypeError(f"{name} must be a PyTorch tensor, but is {type(given).__name__}")
    if given.shape != (batch,) or given.dtype not in WHOLE:
        told = f"{list(given.shape)} and {given.dtype}"
        raise ValueError(f"{name} must be {batch} whole numbers, but are {told}")
    return given.long()


def _lengths(
    given: int | torch.Tensor | None, room: int, batch: int, device: torch.device
) -> torch.Tensor:
    """The lengths of all rows, ``(batch)``."""
    if given is None:
        return torch.full((batch,), room, device=device)
    if not isinstance(given, torch.Tensor):
        if not hasattr(given, "__index__"):
            raise TypeError(
                f"cache_seqlens must be a whole number or a PyTorch tensor, but is {given!r}"
            )
        given = torch.full((batch,), given, device=device)
    lengths = _whole("cache_seqlens", given, batch)
    check_within("cache_seqlens", lengths, room)
    return lengths


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
        form = "(cache rows, cache_len, kv_heads, dim)"
        check(form if pages is None else "(pages, page_len, kv_heads, dim)", k_cache=keys)
        self.keys, self.values = keys, values
        self._places, self._pages = None, pages
        self._batch = batch
        self.room = keys.shape[1]
        if pages is not None:
            if places is not None:
                raise ValueError("cache_batch_idx says nothing where block_table is given")
            check_table(pages, batch)
            self.room *= pages.shape[1]
        elif places is not None:
            self._places = _whole("cache_batch_idx", places, batch)
            check_within("cache_batch_idx", self._places, len(keys) - 1)
        elif len(keys) != batch:
            raise ValueError(
                f"k_cache must have {batch} rows like q, or cache_batch_idx say which are meant, "
                f"but has {len(keys)}"
            )

    def check_new(self, k: torch.Tensor, v: torch.Tensor) -> None:
        """Raises if new keys and values do not fit."""
        check("(batch, new_len, kv_heads, dim)", k=k, v=v)
        check_types(self.keys, k=k, v=v)  # The cache is of the type of q.
        for name, new, kept in (("k", k, self.keys), ("v", v, self.values)):
            expected = [self._batch, k.shape[1], *kept.shape[2:]]
            if list(new.shape) != expected:
                raise ValueError(f"{name} must have shape {expected}, but has {list(new.shape)}")

    def append(self, keys: torch.Tensor, values: torch.Tensor, held: torch.Tensor) -> None:
        """Writes new keys and values behind those that are held."""
        count = keys.shape[1]
        positions = held[:, None] + torch.arange(count, device=held.device)
        if positions.numel() and int(positions.max()) >= self.room:
            raise ValueError(
                f"the cache has room for {self.room} keys, but {int(positions.max()) + 1} are asked"
            )
        if self._pages is not None:
            page_len = self.keys.shape[1]
            pages = known_pages(self._pages, held + count, self.keys)
            rows, positions = pages.gather(1, positions // page_len), positions % page_len
        elif self._places is not None:
            rows = self._places[:, None]
        else:
            rows = torch.arange(self._batch, device=held.device)[:, None]
        self.keys[rows, positions] = keys
        self.values[rows, positions] = values

    def rows(
        self, first: torch.Tensor | None, held: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of each row of the batch, from `first` on."""
        keys, values = self.keys, self.values
        if self._pages is not None:
            pages = known_pages(self._pages, held, keys)
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

    def __init__(
        self, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool, head_dim: int
    ) -> None:
        check("(positions, rotary_dim / 2)", rotary_cos=cos, rotary_sin=sin)
        if sin.shape != cos.shape:
            told = f"{list(sin.shape)} and {list(cos.shape)}"
            raise ValueError(f"rotary_sin must have the shape of rotary_cos, but they have {told}")
        if 2 * cos.shape[1] > head_dim:
            raise ValueError(
                f"rotary_cos must have at most {head_dim // 2} columns for a head_dim of "
                f"{head_dim}, but has {cos.shape[1]}"
            )
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
