"""Decoder-only Transformer: a causal language model."""

from __future__ import annotations

from torch import Tensor

from fusewire.models.language.blocks import Stack
from fusewire.models.language.layout import Causal, Continued, KeyValueCache, Layout, Packed
from fusewire.models.language.saving import Saved
from fusewire.models.language.transformer_config import TransformerConfig


class Transformer(Saved[TransformerConfig], Stack):
    r"""Decoder-only Transformer language model.

    .. math:: p(x_{t+1} \mid x_{\le t}) = \mathrm{softmax}(W_e\,\mathrm{norm}(h_t))

    with :math:`W_e` the embedding itself where it is tied: one parameter used twice, so that tied
    weights cannot come apart when they are saved and loaded.

    Args:
        config: sizes and styles.
        vocab_size: number of token ids.

    Example:
        >>> import torch
        >>> from fusewire.models.language import Transformer, TransformerConfig
        >>> model = Transformer(TransformerConfig(context=8, layers=1, heads=2, embed_dim=16), 10)
        >>> logits, _ = model(torch.tensor([[1, 2, 3]]))
        >>> logits.shape
        torch.Size([1, 3, 10])
    """

    KIND = "transformer"
    CONFIG = TransformerConfig

    def __init__(self, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)

    def initial_state(self, batch: int, padding: Tensor | None = None) -> KeyValueCache:
        """An empty cache for ``batch`` sequences; pass it to ``forward`` with each new piece.

        Args:
            batch: sequences.
            padding: tokens at the beginning of each sequence that are none, (batch).
        """
        return KeyValueCache(self.config, batch, self.embedding.weight, padding)

    def begin(self, tokens: Tensor, padding: Tensor | None) -> tuple[Tensor, KeyValueCache]:
        """Reads prompts.

        Args:
            tokens: token ids, (batch, prompt_len).
            padding: tokens at the beginning of each row that are none, (batch); none if None.

        Returns:
            Logits of what follows each prompt, (batch, vocab_size), and the state.
        """
        cache = self.initial_state(len(tokens), padding)
        hidden, _ = self.features(tokens, cache)
        return self.score(hidden[:, -1]), cache

    def forward(
        self,
        tokens: Tensor,
        state: KeyValueCache | None = None,
        *,
        boundaries: Tensor | None = None,
    ) -> tuple[Tensor, KeyValueCache | None]:
        """Reads tokens and scores what may follow each of them.

        Args:
            tokens: token ids, (batch, query_len).
            state: cache of the tokens before these, from ``initial_state`` or the last call. It
                is extended in place. ``None``: the tokens stand at the start, nothing is kept.
            boundaries: where the sequences of a packed batch (1, tokens) begin, and the end of
                the last; each is read by itself.

        Returns:
            Logits of the next token, (batch, query_len, vocab_size), and the state.

        Raises:
            ValueError: if past and new tokens together exceed the context.
        """
        hidden, state = self.features(tokens, state, boundaries=boundaries)
        return self.score(hidden), state

    def features(
        self,
        tokens: Tensor,
        state: KeyValueCache | None = None,
        *,
        boundaries: Tensor | None = None,
    ) -> tuple[Tensor, KeyValueCache | None]:
        """What ``forward`` scores: the state of each token, (batch, query_len, embed_dim)."""
        layout: Layout
        if boundaries is not None:
            layout = Packed(tokens, boundaries, self.config, is_causal=True)
        else:
            self._require_context(0 if state is None else state.length, tokens)
            window = self.config.attention_window
            layout = Causal(tokens, window) if state is None else Continued(tokens, state)
        hidden = self.read(tokens, layout)
        if state is not None:
            state.advance(tokens.shape[1])
        return hidden, state

    def select(self, state: KeyValueCache, rows: Tensor) -> KeyValueCache:
        """The state of the given rows, in their order."""
        return state.select(rows)
