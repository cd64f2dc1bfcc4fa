"""Complete configurations of language-model runs, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from fusewire.data.tokenizers import TokenizerKind
from fusewire.models.language import RecurrentConfig, TransformerConfig
from fusewire.training.sequence.config import LanguageConfig

ModelKind: TypeAlias = Literal["transformer", "lstm", "gru", "rnn"]


def demo_transformer() -> LanguageConfig:
    """A small character Transformer that learns to spell English in about half a minute.

    On one thread: with so little work a step, two gain little on an idle machine, and lose much
    where another process wants a core.
    """
    return LanguageConfig(
        model=TransformerConfig(context=64, layers=2, heads=4, embed_dim=128),
        tokenizer="characters",
        steps=2400,
        batch=8,
        context=64,
        learning_rate=6e-3,
        warmup_steps=100,
        weight_decay=0.01,
        threads=1,
        validate_every=600,
        save_every=600,
    )


def demo_lstm() -> LanguageConfig:
    """A character LSTM that learns to spell English in about half a minute, on one thread too."""
    return LanguageConfig(
        model=RecurrentConfig(cell="lstm", layers=1, embed_dim=256, hidden_size=256),
        tokenizer="characters",
        steps=1800,
        batch=16,
        context=64,
        learning_rate=5e-3,
        warmup_steps=50,
        weight_decay=0.01,
        threads=1,
        validate_every=600,
        save_every=600,
    )


def default(
    data: Path,
    model: ModelKind,
    *,
    context: int = 128,
    tokenizer: TokenizerKind = "bytes",
) -> LanguageConfig:
    """A model of moderate size for a text of one's own.

    Args:
        data: a UTF-8 text file.
        model: what to train.
        context: tokens that a Transformer sees, or steps of truncated backpropagation.
        tokenizer: what a token is.
    """
    if model == "transformer":
        return LanguageConfig(
            model=TransformerConfig(context=context, layers=4, heads=4, embed_dim=128),
            data=data,
            tokenizer=tokenizer,
            steps=2000,
            batch=16,
            context=context,
            learning_rate=2e-3,
        )
    return LanguageConfig(
        model=RecurrentConfig(cell=model, layers=2, embed_dim=256, hidden_size=256),
        data=data,
        tokenizer=tokenizer,
        steps=2000,
        batch=32,
        context=context,
        learning_rate=1e-3 if model == "rnn" else 3e-3,
        weight_decay=0.01,
    )
