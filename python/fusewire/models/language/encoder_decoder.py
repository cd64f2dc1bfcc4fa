"""Encoder-decoder Transformer: reads one sequence and writes another."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fusewire.config import require_declared
from fusewire.errors import InputError
from fusewire.models.language.blocks import Memory, Stack
from fusewire.models.language.conditioned import Conditioned
from fusewire.models.language.layout import Bidirectional, Causal, Continued, KeyValueCache
from fusewire.models.language.saving import Saved
from fusewire.models.language.transformer_config import TransformerConfig


@dataclass(frozen=True)
class EncoderDecoderConfig:
    """Sizes of both halves.

    Attributes:
        encoder: reads the source; its output layer is not used, so it must be tied.
        decoder: writes the target; its context bounds the target.
    """

    encoder: TransformerConfig = field(default_factory=TransformerConfig)
    decoder: TransformerConfig = field(default_factory=TransformerConfig)

    def __post_init__(self) -> None:
        require_declared(self)
        if not self.encoder.tied:
            raise InputError("encoder.tied must be true: an encoder here has no output layer")


class DecoderState:
    """What the decoder remembers: the source's memory, and a cache of what it has written."""

    def __init__(self, memory: Memory, cache: KeyValueCache) -> None:
        self.memory = memory
        self.cache = cache

    @property
    def hidden(self) -> Tensor:
        """The encoder's output, (batch, source_len, embed_dim)."""
        return self.memory.hidden


class EncoderDecoder(Saved[EncoderDecoderConfig], nn.Module):
    r"""Encoder-decoder Transformer with cross-attention.

    .. math:: p(y_{t+1} \mid y_{\le t}, x) = \mathrm{softmax}(W\,\mathrm{decoder}(y_{\le t},
              \mathrm{encoder}(x))_t)

    Args:
        config: sizes.
        vocab_size: number of token ids of source and target together.

    Example:
        >>> import torch
        >>> from fusewire.models.language import EncoderDecoder, EncoderDecoderConfig
        >>> from fusewire.models.language import TransformerConfig
        >>> half = TransformerConfig(context=8, layers=1, heads=2, embed_dim=16)
        >>> model = EncoderDecoder(EncoderDecoderConfig(half, half), 10)
        >>> model(torch.tensor([[1, 2, 3]]), torch.tensor([[0, 4]])).shape
        torch.Size([1, 2, 10])
    """

    KIND = "encoder-decoder"
    CONFIG = EncoderDecoderConfig

    def __init__(self, config: EncoderDecoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.encoder = Stack(config.encoder, vocab_size)
        self.decoder = Stack(config.decoder, vocab_size, memory_dim=config.encoder.embed_dim)

    @property
    def window(self) -> int:
        """Most tokens that the decoder writes."""
        return self.config.decoder.context

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> Memory:
        """Reads the source.

        Args:
            source: token ids, (batch, source_len).
            lengths: tokens of each row that are no padding, (batch); all if None.

        Raises:
            ValueError: if there are more tokens than the encoder's context.
        """
        self.encoder._require_context(0, source)
        window = self.config.encoder.attention_window
        layout = Bidirectional(source, lengths, window)
        return Memory(self.encoder.read(source, layout), lengths)

    def forward(
        self, source: Tensor, target: Tensor, source_lengths: Tensor | None = None
    ) -> Tensor:
        """Scores what may follow each token of the target.

        Args:
            source: token ids, (batch, source_len).
            target: token ids from the begin token on, (batch, target_len).
            source_lengths: tokens of each source that are no padding, (batch); all if None.

        Returns:
            Logits of the next token, (batch, target_len, vocab_size).
        """
        self.decoder._require_context(0, target)
        layout = Causal(target, self.config.decoder.attention_window)
        memory = self.encode(source, source_lengths)
        return self.decoder.score(self.decoder.read(target, layout, memory))

    def conditioned(self, source: Tensor, lengths: Tensor | None = None) -> Conditioned:
        """The language model of targets of these sources, for `generate` and `beam_search`."""
        return Conditioned(
            self, DecoderState(self.encode(source, lengths), self._empty(len(source)))
        )

    def decode(self, target: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Scores what may follow each new token; ``state`` tells the source and what came before.

        Args:
            target: new token ids, (batch, query_len).
            state: extended in place.
        """
        self.decoder._require_context(state.cache.length, target)
        hidden = self.decoder.read(target, Continued(target, state.cache), state.memory)
        state.cache.advance(target.shape[1])
        return self.decoder.score(hidden), state

    def select(self, state: DecoderState, rows: Tensor) -> DecoderState:
        """The state of the given rows, in their order."""
        return DecoderState(state.memory.select(rows), state.cache.select(rows))

    def fresh(self, state: DecoderState) -> DecoderState:
        """The same memory with nothing written yet."""
        return DecoderState(state.memory, self._empty(len(state.hidden)))

    @torch.no_grad()
    def attention_map(
        self, source: Tensor, target: Tensor, source_lengths: Tensor | None = None
    ) -> Tensor:
        """How much each target token attends to each source token.

        Returns:
            Weights averaged over heads, (layers, batch, target_len, source_len); those of a row
            sum to 1.
        """
        maps: list[Tensor] = []
        hooks = [
            block.get_submodule("cross_attention").register_forward_pre_hook(
                lambda module, inputs: maps.append(module.weights(*inputs).mean(dim=1))
            )
            for block in self.decoder.blocks
        ]
        try:
            self(source, target, source_lengths)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(maps)

    def _empty(self, batch: int) -> KeyValueCache:
        return KeyValueCache(self.config.decoder, batch, self.decoder.embedding.weight)
