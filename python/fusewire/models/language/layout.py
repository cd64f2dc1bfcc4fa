"""How the tokens of a batch stand, and so which of them attend to which.

Each layout has the places of its tokens and computes attention of queries (B, H, T, D) to keys and
values (B, K, S, D); the blocks of a Transformer are the same for all.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

import fusewire
from fusewire.models.language.transformer_config import TransformerConfig


class Layout(Protocol):
    """What a stack of blocks asks of a batch."""

    places: Tensor
    """The place of each token in its sequence, (T) or (B, T)."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of one layer, (B, H, T, D)."""


class Causal:
    """Rows of equal length from their beginning; each token sees those before it.

    Args:
        tokens: token ids, (B, T).
        window: tokens that a token sees, itself among them.
    """

    def __init__(self, tokens: Tensor, window: int | None) -> None:
        self.places = torch.arange(tokens.shape[1], device=tokens.device)
        self._window = _left(window)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ARG002
        """See `Layout`."""
        return fusewire.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=True, window=self._window
        )


class Bidirectional:
    """Rows padded at their ends; each token sees its whole row.

    Args:
        tokens: token ids, (B, T).
        lengths: tokens of each row that are no padding, (B); all if None.
        window: tokens that a token sees to either side, itself among them.
    """

    def __init__(self, tokens: Tensor, lengths: Tensor | None, window: int | None) -> None:
        self.places = torch.arange(tokens.shape[1], device=tokens.device)
        self._lengths = lengths
        self._window = _both(window)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ARG002
        """See `Layout`."""
        return fusewire.scaled_dot_product_attention(
            query, key, value, enable_gqa=True, window=self._window, key_lengths=self._lengths
        )


class Packed:
    """Sequences one behind another in a single row, without padding; none sees another.

    Args:
        tokens: token ids, (1, T).
        boundaries: where sequences begin, and the end of the last: (sequences + 1), from 0 to T.
        config: how long a sequence may be, and how far a token sees.
        is_causal: whether a token sees those before it only.
    """

    def __init__(
        self, tokens: Tensor, boundaries: Tensor, config: TransformerConfig, *, is_causal: bool
    ) -> None:
        lengths = boundaries.diff().tolist()
        if tokens.shape[0] != 1 or sum(lengths) != tokens.shape[1] or int(boundaries[0]):
            raise ValueError(
                f"a packed batch must be one row and its boundaries run from 0 to its length, "
                f"got tokens of shape {tuple(tokens.shape)} and boundaries {boundaries.tolist()}"
            )
        if max(lengths) > config.context:
            raise ValueError(
                f"the model sees at most {config.context} tokens at once, got a sequence of "
                f"{max(lengths)}"
            )
        starts = boundaries[:-1].repeat_interleave(boundaries.diff())
        self.places = torch.arange(tokens.shape[1], device=tokens.device) - starts
        self._boundaries, self._is_causal = boundaries, is_causal
        self._window = (_left if is_causal else _both)(config.attention_window)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ARG002
        """See `Layout`."""
        query, key, value = (heads[0].transpose(0, 1) for heads in (query, key, value))
        attended = fusewire.varlen_attention(
            query,
            key,
            value,
            self._boundaries,
            self._boundaries,
            is_causal=self._is_causal,
            enable_gqa=True,
            window=self._window,
        )  # (T, H, D)
        return attended.transpose(0, 1)[None]


class KeyValueCache:
    """Keys and values of the tokens read so far, for every layer, in buffers of the full context.

    Args:
        config: sizes.
        batch: rows.
        like: dtype and device of the buffers.
        padding: tokens at the beginning of each row that are none, (B); none if None.

    Attributes:
        length: tokens held, padding among them.
        window: how far back and ahead a token sees; everything before it if None.
    """

    def __init__(
        self, config: TransformerConfig, batch: int, like: Tensor, padding: Tensor | None = None
    ) -> None:
        heads, width = config.key_value_heads, config.width_of_head
        shape = (config.layers, batch, heads, config.context, width)
        self._keys, self._values = like.new_empty(shape), like.new_empty(shape)
        self.window = _left(config.attention_window)
        self.padding = padding if padding is not None and bool(padding.any()) else None
        self.length = 0

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Writes one layer's new keys and values after the held ones; returns all of them.

        The length moves with ``advance``, once every layer has written.
        """
        end = self.length + key.shape[-2]
        self._keys[layer, :, :, self.length : end] = key
        self._values[layer, :, :, self.length : end] = value
        return self._keys[layer, :, :, :end], self._values[layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        """Counts ``tokens`` more tokens as held."""
        self.length += tokens

    def select(self, rows: Tensor) -> KeyValueCache:
        """A cache that holds the given rows of this one, in their order."""
        selected = object.__new__(type(self))
        selected.__dict__ |= self.__dict__
        selected._keys, selected._values = self._keys[:, rows], self._values[:, rows]
        selected.padding = None if self.padding is None else self.padding[rows]
        return selected


class Continued:
    """Rows that go on behind a cache; each token sees what is cached and those before it.

    Args:
        tokens: token ids, (B, T).
        cache: what was read before; extended by each layer.
    """

    def __init__(self, tokens: Tensor, cache: KeyValueCache) -> None:
        end = cache.length + tokens.shape[1]
        self._cache = cache
        self.places = torch.arange(cache.length, end, device=tokens.device)
        self._mask: Tensor | None = None
        if cache.padding is not None:
            padding = cache.padding[:, None]
            self.places = (self.places - padding).clamp(min=0)
            exists = torch.arange(end, device=tokens.device) >= padding
            self._mask = exists[:, None, None, :]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Layout`."""
        key, value = self._cache.append(layer, key, value)
        return fusewire.scaled_dot_product_attention(
            query,
            key,
            value,
            self._mask,
            is_causal=True,
            enable_gqa=True,
            causal_alignment="bottom_right",
            window=self._cache.window,
        )


def _left(window: int | None) -> tuple[int, int] | None:
    return None if window is None else (window - 1, 0)


def _both(window: int | None) -> tuple[int, int] | None:
    return None if window is None else (window - 1, window - 1)
