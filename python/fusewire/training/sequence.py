"""Training of language models: one plain loop for Transformers and recurrent networks.

A recurrent model reads contiguous streams and carries its state from batch to batch, cut off from
the gradient (truncated backpropagation); a Transformer reads random windows and starts afresh.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fusewire.data.samples import JARGON_TEXT
from fusewire.data.text import (
    Batches,
    ContiguousStreams,
    Corpus,
    RandomWindows,
    make_corpus,
    read_text,
    segments,
)
from fusewire.data.tokenizers import Tokenizer, Tokens, load_tokenizer
from fusewire.errors import InputError
from fusewire.models.language import (
    Recurrent,
    RecurrentConfig,
    RecurrentState,
    Transformer,
    TransformerConfig,
    generate,
)
from fusewire.training.checkpoint import load_checkpoint, save_checkpoint
from fusewire.training.devices import memory_refusals, require_device, torch_threads
from fusewire.training.durable import replace_file
from fusewire.training.metrics import MetricsLog, read_metrics
from fusewire.training.plots import plot_losses
from fusewire.training.progress import TrainingProgress
from fusewire.training.run_directory import RunDirectory, RunResult, refuse_unusable
from fusewire.training.seeds import RandomStreams
from fusewire.training.sequence_config import LanguageConfig, SamplingConfig
from fusewire.training.stopping import GracefulStop, require_finite

KIND = "language"
"""The kind of run directory that this loop fills."""

LanguageModel: TypeAlias = Transformer | Recurrent

_TOKENIZER = "tokenizer.json"
_BETWEEN_TEXTS = "\n" + "-" * 72 + "\n"
_VALIDATION_BATCH = 32

# A recurrent model is measured on segments of so many contexts, each read from a state of zeros.
_CONTEXTS_PER_SEGMENT = 16


@memory_refusals()
def train(config: LanguageConfig, path: Path) -> RunResult:
    """Trains a language model and fills a run directory.

    Progress goes to standard output. Ctrl-C and SIGTERM finish the step and save.

    Args:
        config: what to train, on what, how.
        path: the run directory to make.

    Returns:
        What the run left behind.

    Raises:
        InputError: data, device or path cannot be used, or the loss is no longer finite.
    """
    refuse_unusable(path)
    corpus = load_corpus(config)
    learner = Learner(config, corpus.tokenizer.vocab_size)
    with RunDirectory.create(path, KIND, config, corpus.fingerprint) as run:
        _write(run.path / _TOKENIZER, corpus.tokenizer.to_json())
        return _train(config, run, corpus, learner, done=0)


@memory_refusals()
def resume(path: Path) -> RunResult:
    """Continues a run from its newest checkpoint, bit for bit as if it had never stopped.

    Args:
        path: the run directory.

    Returns:
        What the run left behind.

    Raises:
        InputError: the directory is no such run, is finished or damaged, or its data has changed.
    """
    run = RunDirectory.open(path, KIND)
    config = run.config(LanguageConfig)
    corpus = load_corpus(config)
    run.require_same_data(corpus.fingerprint)
    learner = Learner(config, corpus.tokenizer.vocab_size)
    done = learner.load(run.checkpoint_folder)
    if done >= config.steps:
        raise InputError(f"{path} is finished: it has done all its {config.steps} steps")
    return _train(config, run, corpus, learner, done)


class Learner:
    """Everything that a step changes: the model, its optimiser, its carried state, the randomness.

    Args:
        config: the run.
        vocab_size: number of token ids.

    Raises:
        InputError: the device of the run cannot be used.
    """

    def __init__(self, config: LanguageConfig, vocab_size: int) -> None:
        require_device(config.device)
        self.random_streams = RandomStreams(config.seed)
        self.model = build_model(config.model, vocab_size).to(config.device)
        self.optimizer = _build_optimizer(self.model, config)
        self.carried = CarriedState(self.model, config.batch)

    def save(self, folder: Path, step: int) -> None:
        """Writes a checkpoint."""
        modules, optimizers = self._parts()
        save_checkpoint(folder, step, modules, optimizers, {}, self.random_streams)

    def load(self, folder: Path) -> int:
        """Goes back to the newest checkpoint; returns its step."""
        modules, optimizers = self._parts()
        return load_checkpoint(folder, modules, optimizers, self.random_streams).step

    def _parts(self) -> tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]:
        return {"model": self.model, "carried": self.carried}, {"model": self.optimizer}


def _train(
    config: LanguageConfig, run: RunDirectory, corpus: Corpus, learner: Learner, done: int
) -> RunResult:
    model, optimizer, carried = learner.model, learner.optimizer, learner.carried
    batches = _build_batches(config, corpus.train)
    tokens_per_step = config.batch * config.context
    measured: dict[str, float] = {}
    with (
        torch_threads(config.threads),
        GracefulStop() as stop,
        MetricsLog(run.metrics_path, resume_step=done) as log,
        TrainingProgress(
            _label(config.model), config.steps, done, "tokens", tokens_per_step
        ) as progress,
    ):
        for step in range(done + 1, config.steps + 1):
            batch = batches.at(step - 1)
            inputs = torch.from_numpy(batch.inputs).to(config.device)
            targets = torch.from_numpy(batch.targets).to(config.device)

            logits, state = model(inputs, carried.get() if batch.continues else None)
            loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            gradient_norm = nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
            values = {
                "loss": loss.item(),
                "gradient_norm": gradient_norm.item(),
                "learning_rate": learning_rate(config, step),
            }
            require_finite(values, step, run.checkpoint_folder)
            for group in optimizer.param_groups:
                group["lr"] = values["learning_rate"]
            optimizer.step()
            carried.set(state)

            last = step == config.steps or stop.requested
            if last or step % config.validate_every == 0:
                measured = validate(model, corpus, config)
                values |= measured
            log.write(step, **values)
            progress.update(step, {"loss": values["loss"]} | measured)
            if last or step % config.save_every == 0:
                learner.save(run.checkpoint_folder, step)
                _plot(run, config)
            if last:
                break

    text = _draw(model, corpus.tokenizer, config.sampling)
    _write(run.sample_text_path, text)
    return RunResult(
        path=run.path,
        made={
            "samples": run.sample_text_path,
            "losses": run.losses_path,
            "metrics": run.metrics_path,
            "checkpoint": run.checkpoint_folder,
        },
        step=step,
        metrics={"loss": values["loss"]} | measured,
        stopped_early=step < config.steps,
    )


def validate(model: LanguageModel, corpus: Corpus, config: LanguageConfig) -> dict[str, float]:
    """Measures the model on the validation part of its text.

    Returns:
        ``validation_loss`` in nats per token, and ``bits_per_character``.
    """
    segment_len = config.context
    if model.window is None:
        segment_len *= _CONTEXTS_PER_SEGMENT
    loss = mean_loss(model, corpus.validation[: config.validation_tokens], segment_len)
    bits = loss / math.log(2) * corpus.tokens_per_character
    return {"validation_loss": loss, "bits_per_character": bits}


@torch.no_grad()
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
    device = model.embedding.weight.device
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for part in segments(tokens, segment_len, batch):
        logits, _ = model(torch.from_numpy(part.inputs).to(device))
        targets = torch.from_numpy(part.targets).to(device).flatten()
        total += cross_entropy(logits.flatten(0, 1), targets, reduction="sum").item()
        count += targets.numel()
    model.train(was_training)
    return total / count


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
    run = RunDirectory.open(path, KIND)
    config = run.config(LanguageConfig)
    tokenizer = load_tokenizer(run.path / _TOKENIZER)
    model = build_model(config.model, tokenizer.vocab_size)
    load_checkpoint(run.checkpoint_folder, {"model": model})
    return _draw(model, tokenizer, sampling)


def learning_rate(config: LanguageConfig, step: int) -> float:
    """Learning rate of a step, counted from 1: a linear rise, then half a cosine down."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    final = config.final_learning_rate
    return config.learning_rate * (final + (1.0 - final) * cosine)


def load_corpus(config: LanguageConfig) -> Corpus:
    """Reads the text that a run learns from, as tokens."""
    path = config.data or JARGON_TEXT
    return make_corpus(read_text(path), config.tokenizer, config.context, str(path))


def build_model(config: TransformerConfig | RecurrentConfig, vocab_size: int) -> LanguageModel:
    """Makes a freshly initialised model."""
    if isinstance(config, TransformerConfig):
        return Transformer(config, vocab_size)
    return Recurrent(config, vocab_size)


class CarriedState(nn.Module):
    """What a recurrent model remembers between batches, cut off from the gradient.

    A module with buffers, so that a checkpoint keeps it like weights; empty for a Transformer.

    Args:
        model: its sizes and device decide the buffers.
        batch: rows per batch.
    """

    def __init__(self, model: LanguageModel, batch: int) -> None:
        super().__init__()
        self._pair = False
        if isinstance(model, Recurrent):
            initial = model.initial_state(batch)
            self._pair = isinstance(initial, tuple)
            for index, part in enumerate(initial if isinstance(initial, tuple) else (initial,)):
                self.register_buffer(str(index), part)

    def get(self) -> RecurrentState | None:
        """The state after the batch before."""
        parts = tuple(self.buffers())
        return (parts[0], parts[1]) if self._pair else next(iter(parts), None)

    def set(self, state: RecurrentState | None) -> None:
        """Keeps the state after a batch, both parts of an LSTM's, without their history."""
        if state is None:
            return
        parts = state if isinstance(state, tuple) else (state,)
        for buffer, part in zip(self.buffers(), parts, strict=True):
            buffer.copy_(part.detach())


def _build_optimizer(model: LanguageModel, config: LanguageConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only: shrinking a bias or a norm's gain regularises nothing."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)


def _build_batches(config: LanguageConfig, tokens: Tokens) -> Batches:
    if isinstance(config.model, TransformerConfig):
        return RandomWindows(tokens, config.batch, config.context, config.seed)
    return ContiguousStreams(tokens, config.batch, config.context)


def _draw(model: LanguageModel, tokenizer: Tokenizer, sampling: SamplingConfig) -> str:
    prompt = sampling.prompt or tokenizer.start
    ids = torch.from_numpy(tokenizer.encode(prompt).astype("int64"))
    ids = ids.to(model.embedding.weight.device).expand(sampling.count, -1)
    drawn = generate(
        model,
        ids,
        sampling.length,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        seed=sampling.seed,
    )
    texts = [tokenizer.decode(row).strip("\n") for row in drawn.cpu().numpy()]
    return _BETWEEN_TEXTS.join(texts) + "\n"


def _write(path: Path, text: str) -> None:
    try:
        replace_file(path, text.encode("utf-8"))
    except OSError as failure:
        raise InputError(f"cannot write {path}: {failure.strerror or failure}") from failure


def _plot(run: RunDirectory, config: LanguageConfig) -> None:
    plot_losses(
        read_metrics(run.metrics_path),
        run.losses_path,
        f"{_label(config.model)}: nats per token",
        {"loss": "training", "validation_loss": "validation"},
    )


def _label(config: TransformerConfig | RecurrentConfig) -> str:
    return "Transformer" if isinstance(config, TransformerConfig) else config.cell.upper()
