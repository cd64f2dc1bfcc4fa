"""Encoder Transformer: every token sees the whole text; learns by filling in masked tokens."""

from __future__ import annotations

from torch import Tensor

from fusewire.models.language.blocks import Stack
from fusewire.models.language.layout import Bidirectional, Layout, Packed
from fusewire.models.language.saving import Saved
from fusewire.models.language.transformer_config import TransformerConfig


class Encoder(Saved[TransformerConfig], Stack):
    r"""Masked language model.

    .. math:: p(x_t \mid \tilde x) = \mathrm{softmax}(W_e\,\mathrm{norm}(h_t))

    with :math:`\tilde x` the text in which some tokens are masked (Devlin et al. 2019).

    Args:
        config: sizes and styles.
        vocab_size: number of token ids, that of the mask among them.

    Example:
        >>> import torch
        >>> from fusewire.models.language import Encoder, TransformerConfig
        >>> model = Encoder(TransformerConfig(context=8, layers=1, heads=2, embed_dim=16), 10)
        >>> model(torch.tensor([[1, 2, 0], [3, 0, 0]]), lengths=torch.tensor([3, 1])).shape
        torch.Size([2, 3, 10])
    """

    KIND = "encoder"
    CONFIG = TransformerConfig

    def forward(
        self, tokens: Tensor, lengths: Tensor | None = None, *, boundaries: Tensor | None = None
    ) -> Tensor:
        """Reads tokens and scores what each of them may be.

        Args:
            tokens: token ids, (batch, seq_len).
            lengths: tokens of each row that are no padding, (batch); all if None.
            boundaries: where the sequences of a packed batch (1, tokens) begin, and the end of
                the last; each is read by itself.

        Returns:
            Logits, (batch, seq_len, vocab_size); those of padding mean nothing.

        Raises:
            ValueError: if there are more tokens than the context.
        """
        return self.score(self.features(tokens, lengths, boundaries=boundaries))

    def features(
        self, tokens: Tensor, lengths: Tensor | None = None, *, boundaries: Tensor | None = None
    ) -> Tensor:
        """What ``forward`` scores: the state of each token, (batch, seq_len, embed_dim)."""
        layout: Layout
        if boundaries is not None:
            layout = Packed(tokens, boundaries, self.config, is_causal=False)
        else:
            self._require_context(0, tokens)
            layout = Bidirectional(tokens, lengths, self.config.attention_window)
        return self.read(tokens, layout)
