"""Complete configurations of language-model runs, by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, TypeAlias

from fusewire.data.tokenizers import TokenizerKind
from fusewire.models.language import (
    BagConfig,
    EncoderDecoderConfig,
    RecurrentConfig,
    RecurrentEncoderDecoderConfig,
    TransformerConfig,
)
from fusewire.training.sequence.classifier import ClassifierRunConfig
from fusewire.training.sequence.config import LanguageConfig
from fusewire.training.sequence.masked import MaskedConfig
from fusewire.training.sequence.pretrained import config_of
from fusewire.training.sequence.seq2seq import Seq2SeqConfig

ModelKind: TypeAlias = Literal["transformer", "lstm", "gru", "rnn", "relu"]
ReaderKind: TypeAlias = Literal["encoder", "transformer", "lstm", "gru", "rnn", "relu", "bag"]


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
    start: Path | None = None,
) -> LanguageConfig:
    """A model of moderate size for a text of one's own.

    Args:
        data: a UTF-8 text file.
        model: what to train.
        context: tokens that a Transformer sees, or steps of truncated backpropagation.
        tokenizer: what a token is.
        start: a run to go on from, whose model and tokenizer count then; at a tenth of the rate.
    """
    if start is not None:
        begun: LanguageConfig = config_of(start, LanguageConfig)
        return dataclasses.replace(
            begun,
            data=data,
            start=start,
            embedding=None,  # the run's own has learnt since
            context=min(context, begun.context),
            learning_rate=begun.learning_rate / 10,
        )
    if model == "transformer":
        return LanguageConfig(
            model=_transformer(context),
            data=data,
            tokenizer=tokenizer,
            steps=2000,
            batch=16,
            context=context,
            learning_rate=2e-3,
        )
    return LanguageConfig(
        model=_recurrent(model),
        data=data,
        tokenizer=tokenizer,
        steps=2000,
        batch=32,
        context=context,
        learning_rate=3e-3 if model in ("lstm", "gru") else 1e-3,
        weight_decay=0.01,
    )


def encoder(data: Path, *, context: int = 128, start: Path | None = None) -> MaskedConfig:
    """An encoder of moderate size that learns to fill in masked words.

    Args:
        data: a UTF-8 text file.
        context: tokens that it sees.
        start: a run to go on from, whose model and tokenizer count then; at a tenth of the rate.
    """
    if start is not None:
        begun: MaskedConfig = config_of(start, MaskedConfig)
        rate, context = begun.learning_rate / 10, min(context, begun.context)
        return dataclasses.replace(
            begun, data=data, start=start, embedding=None, context=context, learning_rate=rate
        )
    return MaskedConfig(
        model=_transformer(context),
        data=data,
        steps=4000,
        batch=16,
        context=context,
        learning_rate=1e-3,
        weight_decay=0.01,
    )


def classifier(
    data: Path, model: ReaderKind, *, most_tokens: int = 128, start: Path | None = None
) -> ClassifierRunConfig:
    """A classifier of texts, pre-trained or not.

    Args:
        data: texts with labels.
        model: what reads them, without ``start``.
        most_tokens: longer texts are cut off.
        start: a pre-trained run, whose model and tokenizer count then.
    """
    sizes: BagConfig | TransformerConfig | RecurrentConfig
    reads: Literal["encoder", "decoder"] = "encoder" if model == "encoder" else "decoder"
    if start is not None:
        begun: LanguageConfig | MaskedConfig = config_of(start, LanguageConfig, MaskedConfig)
        sizes, most_tokens = begun.model, min(most_tokens, begun.context)
        reads = "encoder" if isinstance(begun, MaskedConfig) else "decoder"
    elif model in ("lstm", "gru", "rnn", "relu"):
        sizes = _recurrent(model)
    elif model == "bag":
        sizes = BagConfig()
    else:
        sizes = _transformer(most_tokens)
    return ClassifierRunConfig(
        model=sizes,
        data=data,
        reads=reads,
        start=start,
        most_tokens=most_tokens,
        steps=1000,
        batch=32,
        learning_rate=2e-2 if model == "bag" else 1e-3 if start is None else 5e-4,
        warmup_steps=50,
        validate_every=100,
    )


def seq2seq(
    data: Path,
    model: Literal["transformer", "luong", "bahdanau"],
    *,
    most_tokens: int = 64,
    denoising: bool = False,
    start: Path | None = None,
) -> Seq2SeqConfig:
    """An encoder-decoder of moderate size.

    Args:
        data: pairs of texts, or a text file for denoising.
        model: a Transformer, or GRUs with either attention.
        most_tokens: longer sources and targets are cut off.
        denoising: put back what is missing from a text.
        start: a run to go on from, whose model and tokenizer count then.
    """
    sizes: EncoderDecoderConfig | RecurrentEncoderDecoderConfig
    if start is not None:
        begun = config_of(start, Seq2SeqConfig)
        sizes, most_tokens = begun.model, min(most_tokens, begun.most_tokens)
    elif model == "transformer":
        half = TransformerConfig(
            context=most_tokens + 1, layers=3, heads=4, embed_dim=128, positions="sinusoidal"
        )
        sizes = EncoderDecoderConfig(half, half)
    else:
        sizes = RecurrentEncoderDecoderConfig(attention=model, embed_dim=64, hidden_size=128)
    return Seq2SeqConfig(
        model=sizes,
        data=data,
        learns="denoising" if denoising else "pairs",
        start=start,
        most_tokens=most_tokens,
        steps=2000,
        batch=64,
        learning_rate=2e-3,
        weight_decay=0.01,
        validate_every=500,
        save_every=500,
    )


def _transformer(context: int) -> TransformerConfig:
    return TransformerConfig(context=context, layers=4, heads=4, embed_dim=128)


def _recurrent(cell: Literal["lstm", "gru", "rnn", "relu"]) -> RecurrentConfig:
    return RecurrentConfig(cell=cell, layers=2, embed_dim=256, hidden_size=256)
