"""Everything that decides a run of language modelling, checked when it is put together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from fusewire.data.tokenizers import TokenizerKind
from fusewire.errors import InputError
from fusewire.models.language import RecurrentConfig, TransformerConfig
from fusewire.training.settings import (
    require_batch,
    require_between,
    require_counts,
    require_positive,
    require_seed,
)

Sharding: TypeAlias = Literal["replicate", "split"]


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
        require_counts(length=self.length, count=self.count)
        require_between(0, math.inf, temperature=self.temperature)
        require_seed(self.seed)
        if self.top_k is not None:
            require_counts(top_k=self.top_k)


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
        threads: CPU threads of PyTorch while training; ``None`` leaves them as they are.
        sharding: what many processes do with the parameters: ``"replicate"`` them (DDP), or
            ``"split"`` them and the optimiser's moments (FSDP2), for models that one cannot hold.
        tensorboard: write the log for TensorBoard too.
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
    threads: int | None = None
    sharding: Sharding = "replicate"
    tensorboard: bool = False
    sampling: SamplingConfig = SamplingConfig(temperature=0.6, count=3)

    def __post_init__(self) -> None:
        require_counts(steps=self.steps, context=self.context)
        require_batch(batch=self.batch)
        require_counts(validate_every=self.validate_every, save_every=self.save_every)
        require_between(2, math.inf, validation_tokens=self.validation_tokens)
        require_between(
            0,
            math.inf,
            warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
            final_learning_rate=self.final_learning_rate,
        )
        require_positive(learning_rate=self.learning_rate, gradient_clip=self.gradient_clip)
        require_seed(self.seed)
        if self.threads is not None:
            require_counts(threads=self.threads)
        if isinstance(self.model, TransformerConfig) and self.context > self.model.context:
            raise InputError(
                f"context must be at most the model's, {self.model.context}, got {self.context}"
            )
