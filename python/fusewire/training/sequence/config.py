"""Everything that decides a run of language modelling, checked when it is put together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from fusewire.config import require_declared
from fusewire.data.documents import DocumentKind
from fusewire.data.tokenizers import TokenizerKind
from fusewire.errors import InputError
from fusewire.models.language import RecurrentConfig, Sampling, TransformerConfig
from fusewire.training.settings import (
    require_batch,
    require_between,
    require_counts,
    require_positive,
    require_seed,
)

Sharding: TypeAlias = Literal["replicate", "split"]
Precision: TypeAlias = Literal["float32", "bfloat16"]


MOST_BEAMS = 1024
"""More would take memory without end, and find nothing."""


@dataclass(frozen=True)
class SamplingConfig:
    """How text is drawn from a model.

    Attributes:
        prompt: text to continue; ``None`` begins a new line.
        length: most tokens to add.
        temperature: below 1 makes likely tokens likelier; 0 takes the likeliest.
        top_k: draw from the k likeliest tokens only; ``None`` means all.
        top_p: draw from the fewest likeliest tokens whose probabilities sum to p.
        min_p: draw from tokens at least this fraction as probable as the likeliest.
        repetition_penalty: above 1 makes tokens that came already less likely.
        beams: search for the most probable texts among what would be drawn, keeping so many, at
            any temperature; 0 draws instead.
        stop: texts that end a text; they are not part of it.
        seed: the same seed gives the same text.
        count: texts to draw, or of the beams the best so many.
    """

    prompt: str | None = None
    length: int = 600
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    beams: int = 0
    stop: tuple[str, ...] = ()
    seed: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        require_declared(self)
        if self.prompt == "":
            raise InputError("the prompt is empty; give some text to continue, or leave it out")
        if any("\ud800" <= character <= "\udfff" for character in self.prompt or ""):
            raise InputError("the prompt is not UTF-8; set the terminal to UTF-8 and try again")
        require_counts(length=self.length, count=self.count)
        require_between(0, math.inf, temperature=self.temperature)
        require_between(0, MOST_BEAMS, beams=self.beams)
        if self.beams and self.count > self.beams:
            raise InputError(
                f"count must be at most the number of beams, {self.beams}, got {self.count}"
            )
        require_seed(self.seed)
        if "" in self.stop:
            raise InputError("a stop string is empty; give some text, or leave it out")
        self.draws()

    def draws(self) -> Sampling:
        """How a token is drawn."""
        return Sampling(
            self.temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty
        )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What every run of a sequence model says about its steps.

    Attributes:
        steps: optimiser steps.
        batch: rows per batch.
        accumulate: parts in which a batch is read, one after another, for batches that do not fit
            into memory at once; their gradients are averaged.
        precision: what activations are computed in; weights and moments stay ``"float32"``.
        learning_rate: highest learning rate of AdamW.
        final_learning_rate: where the cosine ends, as a fraction of ``learning_rate``.
        warmup_steps: steps over which the learning rate rises from 0.
        weight_decay: of weight matrices; biases and norms have none.
        gradient_clip: largest norm of all gradients together.
        validate_every: steps between measurements on the validation part.
        save_every: steps between checkpoints.
        seed: decides the initial weights, the order of the data and dropout.
        device: where to train, such as ``"cpu"`` or ``"cuda"``.
        threads: CPU threads of PyTorch while training; ``None`` leaves them as they are.
        sharding: what many processes do with the parameters: ``"replicate"`` them (DDP), or
            ``"split"`` them and the optimiser's moments (FSDP2), for models that one cannot hold.
        tensorboard: write the log for TensorBoard too.
    """

    steps: int = 1000
    batch: int = 16
    accumulate: int = 1
    precision: Precision = "float32"
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.1
    warmup_steps: int = 100
    weight_decay: float = 0.1
    gradient_clip: float = 1.0
    validate_every: int = 250
    save_every: int = 250
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    sharding: Sharding = "replicate"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        require_declared(self)
        require_counts(steps=self.steps)
        require_batch(batch=self.batch)
        require_counts(accumulate=self.accumulate)
        require_counts(validate_every=self.validate_every, save_every=self.save_every)
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

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 1: a linear rise, then half a cosine down."""
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        final = self.final_learning_rate
        return self.learning_rate * (final + (1.0 - final) * cosine)


def require_one_beginning(start: Path | None, embedding: Path | None) -> None:
    """Refuses word vectors for an embedding that a run has learnt already."""
    if start is not None and embedding is not None:
        raise InputError(
            "start brings an embedding that has learnt, and embedding would take its place; leave "
            "out one of them"
        )


@dataclass(frozen=True, kw_only=True)
class LanguageConfig(TrainingConfig):
    """Everything that decides a run of language modelling.

    Attributes:
        model: kind and sizes of the network.
        data: a UTF-8 text file; ``None`` means the English sample that comes with the package.
        tokenizer: what a token is.
        vocab_size: most tokens of a tokenizer that is learnt from the text.
        context: tokens per row; for a recurrent model the steps of truncated backpropagation.
        documents: what is read by itself, packed without padding, so that a batch holds at most
            ``batch`` times ``context`` tokens; ``None`` reads the text as one.
        start: a run or a saved model to go on from, with its tokenizer; ``None`` starts afresh.
        embedding: word vectors that the embedding starts from; not with ``start``.
        validation_tokens: measure on at most so many tokens.
        sampling: how samples.txt is drawn.
    """

    model: TransformerConfig | RecurrentConfig
    data: Path | None = None
    tokenizer: TokenizerKind = "bytes"
    vocab_size: int = 8192
    context: int = 128
    documents: DocumentKind | None = None
    start: Path | None = None
    embedding: Path | None = None
    validation_tokens: int = 65536
    sampling: SamplingConfig = SamplingConfig(temperature=0.6, count=3)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_beginning(self.start, self.embedding)
        require_counts(context=self.context, vocab_size=self.vocab_size)
        require_between(2, math.inf, validation_tokens=self.validation_tokens)
        if isinstance(self.model, TransformerConfig) and self.context > self.model.context:
            raise InputError(
                f"context must be at most the model's, {self.model.context}, got {self.context}"
            )
