"""Masked language models: an encoder learns a text by filling in what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fusewire.data.masking import IGNORED, MaskedBatch, MaskedWindows
from fusewire.data.samples import JARGON_TEXT
from fusewire.data.text import Corpus, make_corpus, read_text
from fusewire.data.tokenizers import TokenizerKind
from fusewire.errors import InputError
from fusewire.models.language import Encoder, TransformerConfig
from fusewire.training.processes import Processes
from fusewire.training.run_directory import RunDirectory
from fusewire.training.sequence.config import TrainingConfig
from fusewire.training.sequence.pretrained import embed_with, start_from, tokenizer_of
from fusewire.training.sequence.runs import Kind, Material, ScheduledTask, Vocabulary
from fusewire.training.session import Appearance
from fusewire.training.settings import require_between, require_counts

KIND = "masked"
"""The kind of run directory that this training fills."""

_VALIDATION_STEPS = 8


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(TrainingConfig):
    """Everything that decides a run.

    Attributes:
        model: sizes of the encoder.
        data: a UTF-8 text file; ``None`` means the English sample that comes with the package.
        tokenizer: what a token is.
        vocab_size: most tokens of a tokenizer that is learnt from the text.
        context: tokens per row.
        masked: part of the tokens that are to be predicted.
        whole_words: whether the tokens of a word are masked together.
        start: a run to go on from, with its tokenizer; ``None`` starts afresh.
        embedding: word vectors that the embedding starts from.
    """

    model: TransformerConfig
    data: Path | None = None
    tokenizer: TokenizerKind = "bytes"
    vocab_size: int = 8192
    context: int = 128
    masked: float = 0.15
    whole_words: bool = True
    start: Path | None = None
    embedding: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def __init__(self, config: MaskedConfig, corpus: Corpus, processes: Processes) -> None:
        super().__init__(config, processes)
        begins = corpus.tokenizer.begins_word()
        begins = begins if config.whole_words else begins | True
        shape = (config.batch, config.context)
        self._train = MaskedWindows(corpus.train, *shape, config.seed, begins, config.masked)
        self._measured = MaskedWindows(corpus.validation, *shape, 0, begins, config.masked)

    def batch(self, step: int, rows: slice) -> tuple[Tensor, Tensor]:
        """Masked texts and what stood there, (rows, context)."""
        return self._tensors(self._train.at(step), rows)

    def loss(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], carried: None
    ) -> tuple[Tensor, dict[str, Tensor], None]:
        """Nats per masked token."""
        inputs, targets = batch
        loss = cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        return loss, {}, carried

    @torch.no_grad()
    def validate(self, model: Encoder) -> dict[str, float]:
        """Measures loss and accuracy on masks that are the same every time."""
        model.eval()
        loss, right, count = 0.0, 0, 0
        for step in range(_VALIDATION_STEPS):
            inputs, targets = self._tensors(self._measured.at(step), slice(None))
            logits, masked = model(inputs), targets != IGNORED
            loss += cross_entropy(logits[masked], targets[masked], reduction="sum").item()
            right += int((logits[masked].argmax(-1) == targets[masked]).sum())
            count += int(masked.sum())
        model.train()
        return {"validation_loss": loss / count, "validation_accuracy": right / count}

    def finish(self, model: Encoder, run: RunDirectory) -> dict[str, Path]:  # noqa: ARG002
        """Leaves nothing but the model."""
        return {}

    def _tensors(self, batch: MaskedBatch, rows: slice) -> tuple[Tensor, Tensor]:
        inputs, targets = (
            torch.from_numpy(batch.inputs[rows]),
            torch.from_numpy(batch.targets[rows]),
        )
        return inputs.to(self.processes.device), targets.to(self.processes.device)


def _load(config: MaskedConfig) -> Material[MaskedConfig]:
    path = config.data or JARGON_TEXT
    tokenizer = config.tokenizer if config.start is None else tokenizer_of(config.start)
    corpus = make_corpus(read_text(path), tokenizer, config.context, str(path), config.vocab_size)

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
