"""Everything that decides a run of language modelling, checked when it is put together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from fusewire.data.tokenizers import TokenizerKind
from fusewire.errors import InputError
from fusewire.models.language import RecurrentConfig, TransformerConfig


def _require_at_least(least: int, **values: float) -> None:
    for name, value in values.items():
        if not least <= value < math.inf:
            raise InputError(f"{name} must be at least {least}, got {value}")


@dataclass(frozen=True)
class SamplingConfig:
    """How text is drawn from a model.

    Attributes:
        prompt: text to continue; ``None`` begins a new line.
        length: tokens to add.
        temperature: below 1 makes likely tokens likelier; 0 takes the likeliest.
        top_k: draw from the k likeliest tokens only; ``None`` means all.
        seed: the same seed gives the same text.
        count: texts to draw.
    """

    prompt: str | None = None
    length: int = 600
    temperature: float = 0.8
    top_k: int | None = None
    seed: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.prompt == "":
            raise InputError("the prompt is empty; give some text to continue, or leave it out")
        if any("\ud800" <= character <= "\udfff" for character in self.prompt or ""):
            raise InputError("the prompt is not UTF-8; set the terminal to UTF-8 and try again")
        _require_at_least(1, length=self.length, count=self.count)
        _require_at_least(0, temperature=self.temperature, seed=self.seed)
        if self.top_k is not None:
            _require_at_least(1, top_k=self.top_k)


@dataclass(frozen=True)
class LanguageConfig:
    """Everything that decides a run.

    Attributes:
        model: kind and sizes of the network.
        data: a UTF-8 text file; ``None`` means the English sample that comes with the package.
        tokenizer: what a token is, a byte of UTF-8 or a character of the text.
        steps: optimiser steps.
        batch: rows per batch.
        context: tokens per row; for a recurrent model the steps of truncated backpropagation.
        learning_rate: highest learning rate of AdamW.
        final_learning_rate: where the cosine ends, as a fraction of ``learning_rate``.
        warmup_steps: steps over which the learning rate rises from 0.
        weight_decay: of weight matrices; biases and norms have none.
        gradient_clip: largest norm of all gradients together.
        validate_every: steps between measurements on the validation part.
        validation_tokens: measure on at most so many tokens.
        save_every: steps between checkpoints.
        seed: decides the initial weights, the order of the data and dropout.
        device: where to train, such as ``"cpu"`` or ``"cuda"``.
        sampling: how samples.txt is drawn.
    """

    model: TransformerConfig | RecurrentConfig
    data: Path | None = None
    tokenizer: TokenizerKind = "bytes"
    steps: int = 1000
    batch: int = 16
    context: int = 128
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.1
    warmup_steps: int = 100
    weight_decay: float = 0.1
    gradient_clip: float = 1.0
    validate_every: int = 250
    validation_tokens: int = 65536
    save_every: int = 250
    seed: int = 0
    device: str = "cpu"
    sampling: SamplingConfig = SamplingConfig(temperature=0.6, count=3)

    def __post_init__(self) -> None:
        _require_at_least(1, steps=self.steps, batch=self.batch, context=self.context)
        _require_at_least(1, validate_every=self.validate_every, save_every=self.save_every)
        _require_at_least(2, validation_tokens=self.validation_tokens)
        _require_at_least(0, warmup_steps=self.warmup_steps, weight_decay=self.weight_decay)
        _require_at_least(0, final_learning_rate=self.final_learning_rate, seed=self.seed)
        for name in ("learning_rate", "gradient_clip"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be more than 0, got {getattr(self, name)}")
        if isinstance(self.model, TransformerConfig) and self.context > self.model.context:
            raise InputError(
                f"context must be at most the model's, {self.model.context}, got {self.context}"
            )
