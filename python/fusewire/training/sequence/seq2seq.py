"""Encoder-decoders: from pairs of texts, or from a text and what noise has left of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusewire.data.corpus import load_corpus
from fusewire.data.labelled import load_pairs
from fusewire.data.masking import NoisyWindows, PairBatch, make_pairs
from fusewire.data.tokenizers import Tokenizer, TokenizerKind, tokenizer_of_texts
from fusewire.errors import InputError
from fusewire.models.language import (
    EncoderDecoder,
    EncoderDecoderConfig,
    RecurrentEncoderDecoder,
    RecurrentEncoderDecoderConfig,
    beam_search,
)
from fusewire.training.devices import memory_refusals
from fusewire.training.durable import replace_file_or_refuse
from fusewire.training.order import ShuffledOrder
from fusewire.training.plots import plot_matrix
from fusewire.training.processes import Processes
from fusewire.training.run_directory import RunDirectory
from fusewire.training.sequence.config import MOST_BEAMS, TrainingConfig
from fusewire.training.sequence.parts import PairPart, mean_cross_entropy, pair_part_of
from fusewire.training.sequence.pretrained import accepted_by, start_from, tokenizer_for
from fusewire.training.sequence.runs import Begun, Kind, Material, ScheduledTask, Vocabulary
from fusewire.training.session import Appearance
from fusewire.training.settings import require_between, require_counts

KIND = "seq2seq"
"""The kind of run directory that this training fills."""

Model: TypeAlias = EncoderDecoder | RecurrentEncoderDecoder
Pair: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]

_SHOWN = 20
_AT_A_TIME = 64


@dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig(TrainingConfig):
    """Everything that decides a run.

    Attributes:
        model: kind and sizes of the network.
        data: pairs, see `fusewire.data.labelled.load_pairs`, or for denoising a UTF-8 text file.
        learns: ``"pairs"``, or ``"denoising"``: to put back what spans of a text are missing.
        tokenizer: what a token is, of sources and targets alike, without ``start``.
        vocab_size: most tokens of a tokenizer that is learnt from the texts.
        most_tokens: longer sources and targets are cut off; in denoising, tokens per text.
        start: a run to go on from, with its tokenizer; ``None`` starts afresh.
        measured: pairs of the validation part that are measured while training.
    """

    model: EncoderDecoderConfig | RecurrentEncoderDecoderConfig
    data: Path
    learns: Literal["pairs", "denoising"] = "pairs"
    tokenizer: TokenizerKind = "bytes"
    vocab_size: int = 8192
    most_tokens: int = 64
    start: Path | None = None
    measured: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(most_tokens=self.most_tokens, measured=self.measured)
        if isinstance(self.model, EncoderDecoderConfig):
            room = min(self.model.encoder.context, self.model.decoder.context - 1)
            if self.most_tokens > room:
                raise InputError(
                    f"most_tokens must be at most {room}, what the contexts have room for, "
                    f"got {self.most_tokens}"
                )


@dataclass(frozen=True)
class Special:
    """Token ids behind those of the tokenizer."""

    mask: int
    begin: int
    end: int

    @classmethod
    def behind(cls, tokenizer: Tokenizer) -> Special:
        """The first three ids that the tokenizer does not use."""
        first = tokenizer.vocab_size
        return cls(first, first + 1, first + 2)


class PairSource:
    """Batches of pairs in a new order each epoch."""

    def __init__(self, pairs: Sequence[Pair], batch: int, seed: int, special: Special) -> None:
        self._pairs, self._special = pairs, special
        self._order = ShuffledOrder(len(pairs), batch, seed)

    def at(self, step: int) -> PairBatch:
        """The batch of a step, counted from 0; the same whenever it is asked for."""
        chosen = [self._pairs[place] for place in self._order.batch(step)]
        sources, targets = [source for source, _ in chosen], [target for _, target in chosen]
        return make_pairs(sources, targets, self._special.begin, self._special.end)


class Seq2SeqTask(ScheduledTask):
    """To write the target of a source.

    Args:
        config: the run.
        batches: of sources and targets.
        measured: pairs to measure on.
        tokenizer: of both.
        processes: decide the device, and who writes.
    """

    def __init__(
        self,
        config: Seq2SeqConfig,
        batches: PairSource | NoisyWindows,
        measured: Sequence[Pair],
        tokenizer: Tokenizer,
        processes: Processes,
    ) -> None:
        super().__init__(config, processes)
        self._config, self._batches = config, batches
        self._measured, self._tokenizer = measured, tokenizer
        self._special = Special.behind(tokenizer)

    def batch(self, step: int, rows: slice) -> PairPart:
        """Sources and targets, (rows, ...)."""
        return pair_part_of(self._batches.at(step), rows, self.processes.device)

    def loss(
        self, model: nn.Module, batch: PairPart, carried: None
    ) -> tuple[Tensor, dict[str, Tensor], None]:
        """Nats per token of the targets, their end among them."""
        logits = model(batch.source, batch.inputs, batch.source_lengths)
        return mean_cross_entropy(logits, batch), {}, carried

    @torch.no_grad()
    def validate(self, model: Model) -> dict[str, float]:
        """Measures the loss, and the part of targets that are written without a mistake."""
        model.eval()
        total, count = 0.0, 0
        for first in range(0, len(self._measured), _AT_A_TIME):
            part = self._measured[first : first + _AT_A_TIME]
            sources, targets = [source for source, _ in part], [target for _, target in part]
            batch = make_pairs(sources, targets, self._special.begin, self._special.end)
            whole = pair_part_of(batch, slice(0, len(part)), self.processes.device)
            total += self.loss(model, whole, None)[0].item() * batch.predicted
            count += batch.predicted
        written = write(model, self._tokenizer, [s for s, _ in self._measured], self._most(), 1)
        right = [
            text == self._tokenizer.decode(target)
            for text, (_, target) in zip(written, self._measured, strict=True)
        ]
        model.train()
        return {"validation_loss": total / count, "exact": sum(right) / len(right)}

    def finish(self, model: Model, run: RunDirectory) -> dict[str, Path]:
        """Writes some targets, and a picture of where the decoder looked."""
        shown = self._measured[:_SHOWN]
        written = write(model, self._tokenizer, [source for source, _ in shown], self._most(), 1)
        lines = [
            f"{self._shown(source)}\n    {text}\n    {self._shown(target)} (right)"
            for (source, target), text in zip(shown, written, strict=True)
        ]
        made = {"samples": run.sample_text_path, "attention": run.path / "attention.png"}
        weights = self._attention(model, shown[0])

        def show() -> None:
            replace_file_or_refuse(made["samples"], "\n".join([*lines, ""]).encode("utf-8"))
            self._plot_attention(weights, shown[0], made["attention"])

        self.processes.by_main(show)
        return made

    def _most(self) -> int:
        return self._config.most_tokens

    def _shown(self, tokens: NDArray[np.int64]) -> str:
        """A text, with "_" for what is missing from it."""
        mask, text, start = self._special.mask, "", 0
        for place in [*np.flatnonzero(tokens == mask).tolist(), len(tokens)]:
            text += self._tokenizer.decode(tokens[start:place]) + "_"
            start = place + 1
        return text[:-1]

    def _attention(self, model: Model, pair: Pair) -> NDArray[np.float32]:
        """The last layer's weights while it writes, (target_len + 1, source_len)."""
        source, target = pair
        device = self.processes.device
        inputs = np.concatenate([[self._special.begin], target])
        was_training = model.training
        model.eval()
        maps = model.attention_map(
            torch.from_numpy(source)[None].to(device), torch.from_numpy(inputs)[None].to(device)
        )
        model.train(was_training)
        return np.asarray(maps[-1, 0].float().cpu().numpy())

    def _plot_attention(self, weights: NDArray[np.float32], pair: Pair, path: Path) -> None:
        source, target = pair
        columns = [self._shown(source[place : place + 1]) for place in range(len(source))]
        rows = [self._tokenizer.decode(target[place : place + 1]) for place in range(len(target))]
        title = "Where the decoder looks (columns) to write each token (rows)"
        plot_matrix(weights, [*rows, "end"], columns, path, title=title)


@torch.no_grad()
def write(
    model: Model,
    tokenizer: Tokenizer,
    sources: Sequence[NDArray[np.int64]],
    length: int,
    beams: int,
) -> list[str]:
    """The most probable target of each source, found with so many beams.

    Args:
        model: switched to evaluation for the time of the call.
        tokenizer: of sources and targets.
        sources: token ids.
        length: most tokens of a target.
        beams: 1 takes the likeliest token each time.
    """
    special = Special.behind(tokenizer)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    texts = []
    for first in range(0, len(sources), _AT_A_TIME):
        part = list(sources[first : first + _AT_A_TIME])
        batch = make_pairs(part, [source[:0] for source in part], special.begin, special.end)
        source, lengths = torch.from_numpy(batch.source), torch.from_numpy(batch.source_lengths)
        conditioned = model.conditioned(source.to(device), lengths.to(device))
        begin = torch.full((len(part), 1), special.begin, device=device)
        tokens, _ = beam_search(conditioned, begin, length + 1, beams=beams, end_token=special.end)
        for row in tokens[:, 1:].cpu().numpy():
            ends = np.flatnonzero(row >= special.mask)
            texts.append(tokenizer.decode(row[: ends[0]] if len(ends) else row))
    model.train(was_training)
    return texts


@memory_refusals()
def transduce(path: Path, texts: Sequence[str], beams: int = 4) -> list[str]:
    """Writes the target of each text with a trained model.

    Args:
        path: the run directory.
        texts: sources.
        beams: kept in the search; 1 takes the likeliest token each time.

    Raises:
        InputError: the path is no run of an encoder-decoder, a text is empty, or there are too few
            or too many beams.
    """
    require_between(1, MOST_BEAMS, beams=beams)
    config, model, vocabulary = TRAINING.open(path)
    tokenizer = vocabulary.tokenizer
    sources = [tokenizer.encode(text)[: config.most_tokens].astype(np.int64) for text in texts]
    if not all(len(source) for source in sources):
        raise InputError("a text is empty; give something to read")
    return write(model, tokenizer, sources, config.most_tokens, beams)


@memory_refusals()
def evaluate(path: Path, data: Path | None = None) -> dict[str, float]:
    """Measures a trained encoder-decoder on pairs.

    Args:
        path: the run directory.
        data: pairs, all of which are measured; ``None`` means those that the run kept back.

    Returns:
        ``validation_loss`` in nats per token, ``exact``, the part of targets without a mistake, and
        ``pairs``, how many were measured.

    Raises:
        InputError: the path is no run of an encoder-decoder.
    """
    config, model, vocabulary = TRAINING.open(path)
    if config.learns != "pairs" and data is None:
        raise InputError(f"{path} learnt from noise; give --data with pairs")
    found = load_pairs(data or config.data)
    if data is None:
        RunDirectory.open(path).require_same_data(found.fingerprint)
    rows = found.validation if data is None else (*found.train, *found.validation)
    pairs = _encode(rows, vocabulary.tokenizer, config.most_tokens)
    nothing = PairSource(pairs, 1, 0, Special.behind(vocabulary.tokenizer))
    task = Seq2SeqTask(config, nothing, pairs, vocabulary.tokenizer, Processes("cpu"))
    return task.validate(model) | {"pairs": len(pairs)}


def _load(config: Seq2SeqConfig, begun: Begun | None = None) -> Material[Seq2SeqConfig]:
    wanted = tokenizer_for(begun, config.start, config.tokenizer)
    if config.learns == "denoising":
        return _load_noise(config, wanted, accepted_by(begun))
    found = load_pairs(config.data)
    texts = [text for pair in (*found.train, *found.validation) for text in pair]
    tokenizer = tokenizer_of_texts(wanted, texts, config.vocab_size)
    special = Special.behind(tokenizer)

    def task(config: Seq2SeqConfig, processes: Processes) -> Seq2SeqTask:
        train, measured = (
            _encode(rows, tokenizer, config.most_tokens) for rows in (found.train, found.validation)
        )
        batches = PairSource(train, config.batch, config.seed, special)
        return Seq2SeqTask(config, batches, measured[: config.measured], tokenizer, processes)

    return Material(Vocabulary(tokenizer), found.fingerprint, task)


def _load_noise(
    config: Seq2SeqConfig, wanted: Tokenizer | TokenizerKind, accept: Callable[[str], None]
) -> Material[Seq2SeqConfig]:
    length = config.most_tokens
    corpus = load_corpus(config.data, wanted, length, config.vocab_size, accept)
    tokenizer = corpus.tokenizer

    def task(config: Seq2SeqConfig, processes: Processes) -> Seq2SeqTask:
        size = tokenizer.vocab_size
        noise = NoisyWindows(corpus.train, config.batch, length, config.seed, size)
        kept = NoisyWindows(corpus.validation, config.measured, length, 0, size).at(0)
        measured = [
            (source[:end], target[:length])
            for source, end, target in zip(
                kept.source, kept.source_lengths, kept.targets, strict=True
            )
        ]
        return Seq2SeqTask(config, noise, measured, tokenizer, processes)

    return Material(Vocabulary(tokenizer), corpus.fingerprint, task)


def _encode(rows: Sequence[tuple[str, str]], tokenizer: Tokenizer, most_tokens: int) -> list[Pair]:
    encoded = [
        tuple(tokenizer.encode(text)[:most_tokens].astype(np.int64) for text in row) for row in rows
    ]
    return [(source, target) for source, target in encoded if len(source)]


def _build(config: Seq2SeqConfig, vocabulary: Vocabulary) -> Model:
    vocab_size = Special.behind(vocabulary.tokenizer).end + 1
    if isinstance(config.model, EncoderDecoderConfig):
        return EncoderDecoder(config.model, vocab_size)
    return RecurrentEncoderDecoder(config.model, vocab_size)


def _begin(config: Seq2SeqConfig, model: Any, vocabulary: Vocabulary) -> None:  # noqa: ARG001
    if config.start is not None:
        start_from(config.start, model)


def _appearance(config: Seq2SeqConfig) -> Appearance:
    return Appearance(
        label="Encoder-decoder",
        title="Encoder-decoder: nats per token",
        curves={"loss": "training", "validation_loss": "validation", "exact": "exact"},
        unit="pairs",
        per_step=config.batch,
    )


TRAINING: Kind[Seq2SeqConfig] = Kind(KIND, Seq2SeqConfig, _load, _build, _begin, _appearance)
train, resume = TRAINING.train, TRAINING.resume
