"""Complete configurations of language-model runs, by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from fusewire.config import require_like
from fusewire.data.tokenizers import TokenizerKind
from fusewire.errors import InputError
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
PairKind: TypeAlias = Literal["transformer", "luong", "bahdanau"]

Continued = TypeVar("Continued", LanguageConfig, MaskedConfig)


def demo_transformer() -> LanguageConfig:
    """A small character Transformer that learns to spell English in about a minute.

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
    """A character LSTM that learns to spell English in about a minute, on one thread too."""
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
    model: ModelKind | None = None,
    *,
    context: int | None = None,
    tokenizer: TokenizerKind = "bytes",
    start: Path | None = None,
) -> LanguageConfig:
    """A model of moderate size for a text of one's own.

    Args:
        data: a UTF-8 text file.
        model: what to train; a Transformer by default.
        context: tokens that a Transformer sees, or steps of truncated backpropagation; 128 by
            default, or those of ``start``.
        tokenizer: what a token is, without ``start``.
        start: a run to go on from, with its model and tokenizer; at a tenth of the rate.

    Raises:
        InputError: there is no such model, or the run is of another or sees fewer tokens.
    """
    require_like(ModelKind | None, model=model)
    if start is not None:
        begun: LanguageConfig = config_of(start, LanguageConfig)
        return _continued(begun, data, start, model, context)
    context = 128 if context is None else context
    if model is None or model == "transformer":
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


def encoder(data: Path, *, context: int | None = None, start: Path | None = None) -> MaskedConfig:
    """An encoder of moderate size that learns to fill in masked words.

    Args:
        data: a UTF-8 text file.
        context: tokens that it sees; 128 by default, or those of ``start``.
        start: a run to go on from, with its model and tokenizer; at a tenth of the rate.

    Raises:
        InputError: the run is of another model, or sees fewer tokens.
    """
    if start is not None:
        begun: MaskedConfig = config_of(start, MaskedConfig)
        return _continued(begun, data, start, "encoder", context)
    context = 128 if context is None else context
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
    data: Path,
    model: ReaderKind | None = None,
    *,
    most_tokens: int | None = None,
    start: Path | None = None,
) -> ClassifierRunConfig:
    """A classifier of texts, pre-trained or not.

    Args:
        data: texts with labels.
        model: what reads them; by default an encoder, or that of ``start``.
        most_tokens: longer texts are cut off; 128 by default, or fewer if ``start`` saw no more.
        start: a pre-trained run to go on from, with its model and tokenizer.

    Raises:
        InputError: there is no such model, or the run is of another or cannot see so many tokens.
    """
    require_like(ReaderKind | None, model=model)
    sizes: BagConfig | TransformerConfig | RecurrentConfig
    tokenizer: TokenizerKind = "bytes"
    begun = None if start is None else config_of(start, LanguageConfig, MaskedConfig)
    if most_tokens is None:
        most_tokens = 128 if begun is None else min(128, begun.context)
    if begun is not None:
        model = _require_kind(start, begun, model)
        sizes, tokenizer = begun.model, begun.tokenizer
    elif model in ("lstm", "gru", "rnn", "relu"):
        sizes = _recurrent(model)
    elif model == "bag":
        sizes = BagConfig()
    else:
        sizes = _transformer(most_tokens)
    return ClassifierRunConfig(
        model=sizes,
        data=data,
        reads="encoder" if model in (None, "encoder") else "decoder",
        start=start,
        tokenizer=tokenizer,
        most_tokens=most_tokens,
        steps=1000,
        batch=32,
        learning_rate=2e-2 if model == "bag" else 1e-3 if start is None else 5e-4,
        warmup_steps=50,
        validate_every=100,
    )


def seq2seq(
    data: Path,
    model: PairKind | None = None,
    *,
    most_tokens: int | None = None,
    denoising: bool = False,
    start: Path | None = None,
) -> Seq2SeqConfig:
    """An encoder-decoder of moderate size.

    Args:
        data: pairs of texts, or a text file for denoising.
        model: a Transformer, or GRUs with either attention; the first by default, or that of
            ``start``.
        most_tokens: longer sources and targets are cut off; 64 by default, or as ``start`` did.
        denoising: put back what is missing from a text.
        start: a run to go on from, with its model and tokenizer.

    Raises:
        InputError: there is no such model, or the run is of another or cannot see so many tokens.
    """
    require_like(PairKind | None, model=model)
    sizes: EncoderDecoderConfig | RecurrentEncoderDecoderConfig
    tokenizer: TokenizerKind = "bytes"
    begun = None if start is None else config_of(start, Seq2SeqConfig)
    if most_tokens is None:
        most_tokens = 64 if begun is None else begun.most_tokens
    if begun is not None:
        _require_kind(start, begun, model)
        sizes, tokenizer = begun.model, begun.tokenizer
    elif model is None or model == "transformer":
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
        tokenizer=tokenizer,
        most_tokens=most_tokens,
        steps=2000,
        batch=64,
        learning_rate=2e-3,
        weight_decay=0.01,
        validate_every=500,
        save_every=500,
    )


def kind_of(start: Path) -> Any:
    """What the model of a run is called, which others go on from."""
    return _kind(config_of(start, LanguageConfig, MaskedConfig, Seq2SeqConfig))


def _kind(begun: LanguageConfig | MaskedConfig | Seq2SeqConfig) -> str:
    if isinstance(begun, MaskedConfig):
        return "encoder"
    if isinstance(begun.model, RecurrentConfig):
        return begun.model.cell
    if isinstance(begun.model, RecurrentEncoderDecoderConfig):
        return begun.model.attention
    return "transformer"


def _require_kind(
    start: Path | None, begun: LanguageConfig | MaskedConfig | Seq2SeqConfig, model: str | None
) -> Any:
    found = _kind(begun)
    if model not in (None, found):
        raise InputError(f'model must be that of {start}, "{found}", got "{model}"; leave it out')
    return found


def _continued(
    begun: Continued, data: Path, start: Path, model: str | None, context: int | None
) -> Continued:
    _require_kind(start, begun, model)
    return dataclasses.replace(
        begun,
        data=data,
        start=start,
        embedding=None,  # the run's own has learnt since
        context=begun.context if context is None else context,
        learning_rate=begun.learning_rate / 10,
    )


def _transformer(context: int) -> TransformerConfig:
    return TransformerConfig(context=context, layers=4, heads=4, embed_dim=128)


def _recurrent(cell: Literal["lstm", "gru", "rnn", "relu"]) -> RecurrentConfig:
    return RecurrentConfig(cell=cell, layers=2, embed_dim=256, hidden_size=256)
