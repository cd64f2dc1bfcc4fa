"""A text classifier: a language model that has read the text, pooled, and a linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from fusewire.config import require_declared
from fusewire.errors import InputError
from fusewire.models.language.bag import Bag
from fusewire.models.language.encoder import Encoder
from fusewire.models.language.recurrent import Recurrent
from fusewire.models.language.transformer import Transformer
from fusewire.nn import Linear

Pooling: TypeAlias = Literal["last", "mean", "cls"]
Reader: TypeAlias = Transformer | Encoder | Recurrent | Bag


@dataclass(frozen=True)
class ClassifierConfig:
    """What stands on top of the language model.

    Attributes:
        classes: how many there are.
        pooling: which states of the text the linear layer sees: the ``"last"`` token's, the
            ``"mean"`` of all, or the first's (``"cls"``), which only an encoder has filled.
        dropout: probability of dropping a unit of what it sees.
    """

    classes: int
    pooling: Pooling = "mean"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require_declared(self)
        if self.classes < 2:
            raise InputError(f"classes must be at least 2, got {self.classes}")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout must be in [0, 1), got {self.dropout}")


class Classifier(nn.Module):
    r"""Scores the classes of a text.

    .. math:: p(k \mid x) = \mathrm{softmax}(W\,\mathrm{pool}(h_1, \dots, h_n) + b)_k

    Args:
        reader: the language model, pre-trained or not.
        config: pooling and classes.

    Raises:
        InputError: the first token's state is asked of a model that reads from left to right.

    Example:
        >>> import torch
        >>> from fusewire.models.language import Classifier, ClassifierConfig
        >>> from fusewire.models.language import Recurrent, RecurrentConfig
        >>> reader = Recurrent(RecurrentConfig(embed_dim=8, hidden_size=8), vocab_size=10)
        >>> model = Classifier(reader, ClassifierConfig(classes=3))
        >>> model(torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([3, 1])).shape
        torch.Size([2, 3])
    """

    def __init__(self, reader: Reader, config: ClassifierConfig) -> None:
        super().__init__()
        if config.pooling == "cls" and not isinstance(reader, Encoder):
            raise InputError(
                "pooling cls needs an encoder: in a model that reads from left to right, the first "
                "token knows nothing of the others"
            )
        self.config = config
        self.reader = reader
        self.dropout = nn.Dropout(config.dropout)
        self.head = Linear(reader.feature_dim, config.classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Scores texts.

        Args:
            tokens: token ids, (batch, seq_len), padded at their ends, or (tokens) of all texts
                one behind another, without padding.
            lengths: tokens of each text that are no padding, (batch), at least 1.

        Returns:
            Logits, (batch, classes).
        """
        hidden = self._read(tokens, lengths)
        if tokens.dim() == 1:
            hidden = hidden[0]
        else:
            exists = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
            hidden = hidden[exists]
        logits: Tensor = self.head(self.dropout(self._pool(hidden, lengths)))
        return logits

    def depths(self) -> list[list[nn.Parameter]]:
        """Parameters by their distance from the output: the head first, the embedding last.

        What gradual unfreezing and learning rates that shrink with depth go by.
        """
        layers: list[list[Any]] = [list(self.head.parameters())]
        known = {id(parameter) for parameter in layers[0]}
        if isinstance(self.reader, Recurrent):
            for layer in reversed(range(self.reader.config.layers)):
                names = self.reader.layers.named_parameters()
                layers.append([weight for name, weight in names if name.endswith(f"_l{layer}")])
        elif not isinstance(self.reader, Bag):
            layers += [list(block.parameters()) for block in reversed(self.reader.blocks)]
        known |= {id(parameter) for layer in layers for parameter in layer}
        layers.append([weight for weight in self.parameters() if id(weight) not in known])
        return layers

    def _read(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        if isinstance(self.reader, Bag):
            return self.reader.features(tokens if tokens.dim() > 1 else tokens[None])
        if tokens.dim() == 1:
            boundaries = nn.functional.pad(lengths.cumsum(0), (1, 0))
            if isinstance(self.reader, Encoder):
                return self.reader.features(tokens[None], boundaries=boundaries)
            return self.reader.features(tokens[None], boundaries=boundaries)[0]
        if isinstance(self.reader, Encoder):
            return self.reader.features(tokens, lengths)
        if isinstance(self.reader, Recurrent):
            return self.reader.features(tokens, lengths=lengths)[0]
        return self.reader.features(tokens)[0]  # what pads a row comes after all that counts

    def _pool(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """One vector a text of its states, (tokens, width), one text behind another."""
        ends = lengths.cumsum(0)
        if self.config.pooling == "cls":
            return hidden[ends - lengths]
        if self.config.pooling == "last":
            return hidden[ends - 1]
        texts = torch.arange(len(lengths), device=hidden.device).repeat_interleave(lengths)
        summed = hidden.new_zeros(len(lengths), hidden.shape[1]).index_add(0, texts, hidden)
        return summed / lengths[:, None]
