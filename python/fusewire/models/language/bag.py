"""A text as the set of its words: embeddings and nothing else, for classifiers of few labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fusewire.config import require_declared
from fusewire.errors import InputError
from fusewire.models.language.saving import Saved


@dataclass(frozen=True)
class BagConfig:
    """Sizes of a bag of words.

    Attributes:
        embed_dim: width of the token embedding.
        dropout: probability of dropping a number of an embedding.
    """

    embed_dim: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_declared(self)
        if self.embed_dim < 1:
            raise InputError(f"embed_dim must be at least 1, got {self.embed_dim}")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout must be in [0, 1), got {self.dropout}")


class Bag(Saved[BagConfig], nn.Module):
    r"""The embedding of each token, whatever stands beside it.

    .. math:: h_t = W_e x_t

    Under a `Classifier` that takes their mean this is logistic regression on the mean of word
    vectors where they are frozen, and fastText's classifier (Joulin et al. 2016) where they learn.

    Args:
        config: sizes.
        vocab_size: number of token ids.

    Example:
        >>> import torch
        >>> from fusewire.models.language import Bag, BagConfig
        >>> Bag(BagConfig(embed_dim=8), vocab_size=10).features(torch.tensor([[1, 2, 3]])).shape
        torch.Size([1, 3, 8])
    """

    KIND = "bag"
    CONFIG = BagConfig

    def __init__(self, config: BagConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.embedding = nn.Embedding(vocab_size, config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)

    @property
    def feature_dim(self) -> int:
        """Width of ``features``' output."""
        return self.config.embed_dim

    def features(self, tokens: Tensor) -> Tensor:
        """The state of each token of (batch, seq_len): (batch, seq_len, embed_dim)."""
        dropped: Tensor = self.dropout(self.embedding(tokens))
        return dropped
