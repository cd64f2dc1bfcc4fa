"""Masked language models: an encoder learns a text by filling in what is missing."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fusewire.data.batch import IGNORED, Batches
from fusewire.data.corpus import Corpus, load_corpus
from fusewire.data.documents import (
    DocumentCorpus,
    DocumentKind,
    Documents,
    load_documents,
    read_documents,
    tokenize_documents,
)
from fusewire.data.masking import MaskedWindows, Masker
from fusewire.data.packed import MaskedDocuments
from fusewire.data.samples import JARGON_TEXT
from fusewire.data.tokenizers import Tokenizer, TokenizerKind, Tokens
from fusewire.errors import InputError
from fusewire.models.language import Encoder, TransformerConfig
from fusewire.training.devices import memory_refusals
from fusewire.training.processes import Processes
from fusewire.training.run_directory import RunDirectory
from fusewire.training.sequence.config import TrainingConfig, require_one_beginning
from fusewire.training.sequence.parts import Part, mean_cross_entropy, part_of
from fusewire.training.sequence.pretrained import accepted_by, embed_with, start_from, tokenizer_for
from fusewire.training.sequence.runs import Begun, Kind, Material, ScheduledTask, Vocabulary
from fusewire.training.session import Appearance
from fusewire.training.settings import require_between, require_counts

KIND = "masked"
"""The kind of run directory that this training fills."""

_MEASURED_STEPS = 8
_MEASURED_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(TrainingConfig):
    """Everything that decides a run.

    Attributes:
        model: sizes of the encoder.
        data: a UTF-8 text file; ``None`` means the English sample that comes with the package.
        tokenizer: what a token is.
        vocab_size: most tokens of a tokenizer that is learnt from the text.
        context: tokens per row.
        documents: what is read by itself, packed without padding, so that a batch holds at most
            ``batch`` times ``context`` tokens; ``None`` reads the text as one.
        masked: part of the tokens that are to be predicted.
        whole_words: whether the tokens of a word are masked together.
        start: a run to go on from, with its tokenizer; ``None`` starts afresh.
        embedding: word vectors that the embedding starts from; not with ``start``.
    """

    model: TransformerConfig
    data: Path | None = None
    tokenizer: TokenizerKind = "bytes"
    vocab_size: int = 8192
    context: int = 128
    documents: DocumentKind | None = None
    masked: float = 0.15
    whole_words: bool = True
    start: Path | None = None
    embedding: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_beginning(self.start, self.embedding)
        require_counts(context=self.context, vocab_size=self.vocab_size)
        require_between(0.01, 0.9, masked=self.masked)
        if self.context > self.model.context:
            raise InputError(
                f"context must be at most the model's, {self.model.context}, got {self.context}"
            )


class MaskedTask(ScheduledTask):
    """To say what stood where a text is masked.

    Args:
        config: the run.
        corpus: the text.
        processes: decide the device.
    """

    def __init__(
        self, config: MaskedConfig, corpus: Corpus | DocumentCorpus, processes: Processes
    ) -> None:
        super().__init__(config, processes)
        tokenizer, self._rows = corpus.tokenizer, config.batch
        self._train = _masked(config, tokenizer, corpus.train, config.batch, config.seed)
        self._measured = _masked(config, tokenizer, corpus.validation, _MEASURED_ROWS, seed=0)

    def batch(self, step: int, rows: slice) -> Part:
        """Masked texts and what stood there."""
        return part_of(self._train.at(step), rows, self._rows, self.processes.device)

    def loss(
        self, model: nn.Module, batch: Part, carried: None
    ) -> tuple[Tensor, dict[str, Tensor], None]:
        """Nats per masked token."""
        logits = model(batch.inputs, boundaries=batch.boundaries)
        return mean_cross_entropy(logits, batch), {}, carried

    def validate(self, model: Encoder) -> dict[str, float]:
        """Measures loss and accuracy on masks that are the same every time."""
        measured = _measure(model, self._measured, self.processes.device, _MEASURED_ROWS)
        return {f"validation_{name}": measured[name] for name in ("loss", "accuracy")}

    def finish(self, model: Encoder, run: RunDirectory) -> dict[str, Path]:  # noqa: ARG002
        """Leaves nothing but the model."""
        return {}


def _masked(
    config: MaskedConfig, tokenizer: Tokenizer, held: Tokens | Documents, rows: int, seed: int
) -> Batches:
    begins = tokenizer.begins_word()
    masker = Masker(begins if config.whole_words else begins | True, config.masked)
    if isinstance(held, Documents):
        return MaskedDocuments(held, rows, config.context, seed, masker)
    return MaskedWindows(held, rows, config.context, seed, masker)


@torch.no_grad()
def _measure(
    model: Encoder, batches: Batches, device: torch.device, batch: int
) -> dict[str, float]:
    was_training = model.training
    model.eval()
    loss, right, count = 0.0, 0, 0
    for step, first in itertools.product(range(_MEASURED_STEPS), range(0, _MEASURED_ROWS, batch)):
        rows = slice(first, min(first + batch, _MEASURED_ROWS))
        part = part_of(batches.at(step), rows, _MEASURED_ROWS, device)
        masked = part.targets != IGNORED
        logits, targets = (
            model(part.inputs, boundaries=part.boundaries)[masked],
            part.targets[masked],
        )
        loss += cross_entropy(logits, targets, reduction="sum").item()
        right += int((logits.argmax(-1) == targets).sum())
        count += int(masked.sum())
    model.train(was_training)
    return {
        "loss": loss / count,
        "perplexity": math.exp(loss / count),
        "accuracy": right / count,
        "masked_tokens": float(count),
    }


@memory_refusals()
def evaluate(path: Path, data: Path | None = None, batch: int = 16) -> dict[str, float]:
    """Measures how well a trained encoder fills in what is masked.

    Args:
        path: the run directory.
        data: what `load_corpus` reads, all of which may be masked; ``None`` means the part of its
            own text that the run kept back.
        batch: rows read at a time, which does not change the result.

    Returns:
        ``loss`` in nats per masked token, ``perplexity``, ``accuracy``, and ``masked_tokens``.

    Raises:
        InputError: the path is no run of an encoder, or the text cannot be used.
    """
    config, model, vocabulary = TRAINING.open(path)
    tokenizer = vocabulary.tokenizer
    held: Tokens | Documents
    if data is None:
        held = _corpus_of(config, Begun.of(path)).validation
    elif config.documents is not None:
        held = tokenize_documents(tokenizer, read_documents(data, config.documents))
    else:
        corpus = load_corpus(data, tokenizer, config.context)
        held = np.concatenate([corpus.train, corpus.validation])
    batches = _masked(config, tokenizer, held, _MEASURED_ROWS, seed=0)
    return _measure(model, batches, torch.device("cpu"), batch)


def _corpus_of(config: MaskedConfig, begun: Begun | None) -> Corpus | DocumentCorpus:
    tokenizer, accept = tokenizer_for(begun, config.start, config.tokenizer), accepted_by(begun)
    path, most = config.data or JARGON_TEXT, config.vocab_size
    if config.documents is not None:
        return load_documents(path, config.documents, tokenizer, most, accept)
    return load_corpus(path, tokenizer, config.context, most, accept)


def _load(config: MaskedConfig, begun: Begun | None = None) -> Material[MaskedConfig]:
    corpus = _corpus_of(config, begun)

    def task(config: MaskedConfig, processes: Processes) -> MaskedTask:
        return MaskedTask(config, corpus, processes)

    return Material(Vocabulary(corpus.tokenizer), corpus.fingerprint, task)


def _build(config: MaskedConfig, vocabulary: Vocabulary) -> Encoder:
    return Encoder(config.model, vocabulary.tokenizer.vocab_size + 1)  # and the mask


def _begin(config: MaskedConfig, model: Encoder, vocabulary: Vocabulary) -> None:
    if config.start is not None:
        start_from(config.start, model)
    if config.embedding is not None:
        embed_with(config.embedding, model.embedding, vocabulary.tokenizer)


def _appearance(config: MaskedConfig) -> Appearance:
    return Appearance(
        label="Encoder",
        title="Encoder: nats per masked token",
        curves={"loss": "training", "validation_loss": "validation"},
        unit="tokens",
        per_step=config.batch * config.context,
    )


TRAINING: Kind[MaskedConfig] = Kind(KIND, MaskedConfig, _load, _build, _begin, _appearance)
train, resume = TRAINING.train, TRAINING.resume
