"""Language models: what their training learns from, measures and leaves behind.

A recurrent model reads contiguous streams and carries its state from batch to batch, cut off from
the gradient (truncated backpropagation); a Transformer reads random windows and starts afresh.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from fusewire.data.batch import Batch, Batches
from fusewire.data.corpus import Corpus, load_corpus, read_texts
from fusewire.data.documents import (
    DocumentCorpus,
    Documents,
    load_documents,
    read_documents,
    tokenize_documents,
)
from fusewire.data.packed import PackedDocuments, consecutive
from fusewire.data.samples import JARGON_TEXT
from fusewire.data.text import ContiguousStreams, RandomWindows, segments
from fusewire.data.tokenizers import Tokenizer, Tokens
from fusewire.errors import InputError
from fusewire.models.language import (
    Recurrent,
    RecurrentConfig,
    RecurrentState,
    Transformer,
    TransformerConfig,
)
from fusewire.training.devices import memory_refusals
from fusewire.training.durable import replace_file_or_refuse
from fusewire.training.processes import Processes
from fusewire.training.run_directory import RunDirectory
from fusewire.training.sequence.config import LanguageConfig, SamplingConfig
from fusewire.training.sequence.parts import Part, mean_cross_entropy, part_of
from fusewire.training.sequence.pretrained import accepted_by, embed_with, start_from, tokenizer_for
from fusewire.training.sequence.runs import Begun, Kind, Material, ScheduledTask, Vocabulary
from fusewire.training.sequence.writing import stream_text, write_texts
from fusewire.training.session import Appearance

KIND = "language"
"""The kind of run directory that this training fills."""

LanguageModel: TypeAlias = Transformer | Recurrent

_VALIDATION_BATCH = 32

# A recurrent model is measured on segments of so many contexts, each read from a state of zeros.
_CONTEXTS_PER_SEGMENT = 16


class LanguageTask(ScheduledTask):
    """To predict each token of a text from those before it.

    Args:
        config: the run.
        corpus: the text.
        processes: decide the device, and who writes.
    """

    def __init__(
        self, config: LanguageConfig, corpus: Corpus | DocumentCorpus, processes: Processes
    ) -> None:
        super().__init__(config, processes)
        self._config, self._corpus = config, corpus
        self._batches: Batches
        if isinstance(corpus, DocumentCorpus):
            self._batches = PackedDocuments(corpus.train, config.batch, config.context, config.seed)
        elif isinstance(config.model, TransformerConfig):
            self._batches = RandomWindows(corpus.train, config.batch, config.context, config.seed)
        else:
            self._batches = ContiguousStreams(corpus.train, config.batch, config.context)

    def batch(self, step: int, rows: slice) -> Part:
        """Inputs and targets, and whether they continue those before."""
        return part_of(self._batches.at(step), rows, self._config.batch, self.processes.device)

    def loss(
        self, model: nn.Module, batch: Part, carried: RecurrentState | None
    ) -> tuple[Tensor, dict[str, Tensor], RecurrentState | None]:
        """Nats per token, nothing else, and a recurrent model's state."""
        before = carried if batch.continues else None
        logits, state = model(batch.inputs, before, boundaries=batch.boundaries)
        # Documents have nothing to do with those that come after them.
        return mean_cross_entropy(logits, batch), {}, state if batch.boundaries is None else None

    def validate(self, model: LanguageModel) -> dict[str, float]:
        """Measures ``validation_loss`` in nats per token, and ``bits_per_character``."""
        most = self._config.validation_tokens
        held = self._corpus.validation
        held = held.first(most) if isinstance(held, Documents) else held[:most]
        loss = _mean_over(model, _cut(held, model, self._config, _VALIDATION_BATCH))
        bits = loss / math.log(2) * self._corpus.tokens_per_character
        return {"validation_loss": loss, "bits_per_character": bits}

    def finish(self, model: LanguageModel, run: RunDirectory) -> dict[str, Path]:
        """Writes samples.txt."""
        text = write_texts(model, self._corpus.tokenizer, self._config.sampling)
        content, path = text.encode("utf-8"), run.sample_text_path
        self.processes.by_main(lambda: replace_file_or_refuse(path, content))
        return {"samples": run.sample_text_path}


def corpus_of(config: LanguageConfig, begun: Begun | None) -> Corpus | DocumentCorpus:
    """Reads the text that a run learns from, as tokens.

    Args:
        config: the run.
        begun: what it knows of the text, where it was begun before.

    Raises:
        InputError: the text cannot be used, or has changed since.
    """
    tokenizer, accept = tokenizer_for(begun, config.start, config.tokenizer), accepted_by(begun)
    path, most = config.data or JARGON_TEXT, config.vocab_size
    if config.documents is not None:
        return load_documents(path, config.documents, tokenizer, most, accept)
    return load_corpus(path, tokenizer, config.context, most, accept)


def build_model(config: TransformerConfig | RecurrentConfig, vocab_size: int) -> LanguageModel:
    """Makes a freshly initialised model."""
    if isinstance(config, TransformerConfig):
        return Transformer(config, vocab_size)
    return Recurrent(config, vocab_size)


def _build(config: LanguageConfig, vocabulary: Vocabulary) -> LanguageModel:
    return build_model(config.model, vocabulary.tokenizer.vocab_size)


def _load(config: LanguageConfig, begun: Begun | None = None) -> Material[LanguageConfig]:
    corpus = corpus_of(config, begun)

    def task(config: LanguageConfig, processes: Processes) -> LanguageTask:
        return LanguageTask(config, corpus, processes)

    return Material(Vocabulary(corpus.tokenizer), corpus.fingerprint, task)


def _begin(config: LanguageConfig, model: LanguageModel, vocabulary: Vocabulary) -> None:
    if config.start is not None:
        start_from(config.start, model)
    if config.embedding is not None:
        embed_with(config.embedding, model.embedding, vocabulary.tokenizer)


def _appearance(config: LanguageConfig) -> Appearance:
    model = config.model
    label = "Transformer" if isinstance(model, TransformerConfig) else model.cell.upper()
    return Appearance(
        label=label,
        title=f"{label}: nats per token",
        curves={"loss": "training", "validation_loss": "validation"},
        unit="tokens",
        per_step=config.batch * config.context,
    )


TRAINING: Kind[LanguageConfig] = Kind(KIND, LanguageConfig, _load, _build, _begin, _appearance)
train, resume = TRAINING.train, TRAINING.resume


def mean_loss(
    model: LanguageModel, tokens: Tokens, segment_len: int, batch: int = _VALIDATION_BATCH
) -> float:
    """Mean negative log-likelihood of every token after the first, each scored once.

    The text is cut into segments, each read from a fresh state; how many are read at a time does
    not change the result.

    Args:
        model: switched to evaluation for the time of the call.
        tokens: token ids, at least 2.
        segment_len: tokens per segment.
        batch: segments read at a time.

    Returns:
        Nats per token.
    """
    return _mean_over(model, segments(tokens, segment_len, batch))


@torch.no_grad()
def _mean_over(model: LanguageModel, batches: Iterable[Batch]) -> float:
    device = model.embedding.weight.device
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for batch in batches:
        rows = len(batch.inputs)
        part = part_of(batch, slice(0, rows), rows, device)
        logits, _ = model(part.inputs, boundaries=part.boundaries)
        total += mean_cross_entropy(logits, part).item() * batch.predicted
        count += batch.predicted
    model.train(was_training)
    return total / count


@memory_refusals()
def evaluate(
    path: Path, data: Path | None = None, batch: int = _VALIDATION_BATCH
) -> dict[str, float]:
    """Measures a trained model on a text.

    Args:
        path: the run directory.
        data: a UTF-8 text file or a folder of them; ``None`` means the part of its own text that
            the run kept back.
        batch: segments read at a time, which does not change the result.

    Returns:
        ``loss`` in nats per token, ``perplexity`` per token, how many ``tokens``, and
        ``bits_per_byte`` of the text, where the tokens give it back: those of words and WordPiece
        do not, nor does Unigram's for what it does not know.

    Raises:
        InputError: the path is no run of a language model, or the text cannot be used.
    """
    config, model, vocabulary = TRAINING.open(path)
    tokenizer = vocabulary.tokenizer
    held: Tokens | Documents
    if data is None:
        held = corpus_of(config, Begun.of(path)).validation
    elif config.documents is not None:
        held = tokenize_documents(tokenizer, read_documents(data, config.documents))
    else:
        held = tokenizer.encode(read_texts(data))
    # Nothing says what the first token is: that of the text, or of each document.
    tokens = held.tokens if isinstance(held, Documents) else held
    firsts = len(held.bounds) - 1 if isinstance(held, Documents) else 1
    if len(tokens) < 2:
        raise InputError(f"{data} is too short to be measured: it has {len(tokens)} tokens")
    loss = _mean_over(model, _cut(held, model, config, batch))
    found = {"loss": loss, "perplexity": math.exp(loss), "tokens": len(tokens)}
    size = _text_bytes(tokenizer, held)
    if size is not None:
        found["bits_per_byte"] = loss / math.log(2) * (len(tokens) - firsts) / size
    return found


def _text_bytes(tokenizer: Tokenizer, held: Tokens | Documents) -> int | None:
    """How many bytes a text or documents have, where their tokens give them back."""
    bounds = held.bounds.tolist() if isinstance(held, Documents) else [0, len(held)]
    tokens = held.tokens if isinstance(held, Documents) else held
    sizes = [tokenizer.text_bytes(tokens[a:b]) for a, b in itertools.pairwise(bounds)]
    return None if None in sizes else sum(size or 0 for size in sizes)


@memory_refusals()
def sample(path: Path, sampling: SamplingConfig) -> str:
    """Draws text from the newest checkpoint of a run.

    Args:
        path: the run directory.
        sampling: prompt, length and how to draw.

    Returns:
        The text, beginning with the prompt.

    Raises:
        InputError: if path is no run of a language model, it is damaged, or its vocabulary lacks
            a character of the prompt.
    """
    _, model, vocabulary = TRAINING.open(path)
    return write_texts(model, vocabulary.tokenizer, sampling)


def stream_sample(path: Path, sampling: SamplingConfig) -> Iterator[str]:
    """Yields the parts of one text as they are drawn; see `sample`."""
    _, model, vocabulary = TRAINING.open(path)
    return stream_text(model, vocabulary.tokenizer, sampling)


def _cut(
    held: Tokens | Documents, model: LanguageModel, config: LanguageConfig, batch: int
) -> Iterator[Batch]:
    """A text as segments, or documents as their pieces, so that each token is measured once."""
    if isinstance(held, Documents):
        return consecutive(held, config.context, batch)
    contexts = _CONTEXTS_PER_SEGMENT if model.window is None else 1
    return segments(held, config.context * contexts, batch)
