"""Language models: what their training learns from, measures and leaves behind.

A recurrent model reads contiguous streams and carries its state from batch to batch, cut off from
the gradient (truncated backpropagation); a Transformer reads random windows and starts afresh.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn
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
from fusewire.models.language import (
    Recurrent,
    RecurrentConfig,
    RecurrentState,
    Transformer,
    TransformerConfig,
    generate,
)
from fusewire.training.checkpoint import load_checkpoint
from fusewire.training.devices import memory_refusals
from fusewire.training.durable import replace_file_or_refuse
from fusewire.training.processes import Processes
from fusewire.training.run_directory import RunDirectory, RunResult
from fusewire.training.seeds import RandomStreams
from fusewire.training.sequence.config import LanguageConfig, SamplingConfig
from fusewire.training.sequence.learner import SequenceLearner, decaying_groups
from fusewire.training.sequence.loop import fit
from fusewire.training.session import Appearance, Session, agree_on_path, new_run, restore

KIND = "language"
"""The kind of run directory that this training fills."""

LanguageModel: TypeAlias = Transformer | Recurrent

_TOKENIZER = "tokenizer.json"
_BETWEEN_TEXTS = "\n" + "-" * 72 + "\n"
_VALIDATION_BATCH = 32

# A recurrent model is measured on segments of so many contexts, each read from a state of zeros.
_CONTEXTS_PER_SEGMENT = 16


@memory_refusals()
def train(config: LanguageConfig, path: Path) -> RunResult:
    """Trains a language model and fills a run directory.

    Progress goes to standard output. Ctrl-C and SIGTERM finish the step and save. Started by
    `torchrun`, its processes train together.

    Args:
        config: what to train, on what, how.
        path: the run directory to make.

    Returns:
        What the run left behind.

    Raises:
        InputError: data, device or path cannot be used, or training diverged.
    """
    processes = Processes(config.device)
    path = agree_on_path(processes, path)
    corpus = load_corpus(config)
    learner = build_learner(config, corpus.tokenizer.vocab_size, processes)
    with new_run(processes, path, KIND, config, corpus.fingerprint) as run:
        if processes.is_main:
            replace_file_or_refuse(run.path / _TOKENIZER, corpus.tokenizer.to_json().encode())
        return _fit(config, run, corpus, learner, done=0)


@memory_refusals()
def resume(path: Path, steps: int | None = None) -> RunResult:
    """Continues a run from its newest checkpoint, bit for bit as if it had never stopped.

    Args:
        path: the run directory.
        steps: a new total of steps; by default the one the run was started with.

    Returns:
        What the run left behind.

    Raises:
        InputError: the directory is no such run, is finished or damaged, or its data has changed.
    """
    run = RunDirectory.open(path, KIND)
    config = run.config(LanguageConfig)
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    processes = Processes(config.device)
    corpus = load_corpus(config)
    run.require_same_data(corpus.fingerprint)
    learner = build_learner(config, corpus.tokenizer.vocab_size, processes)
    done = restore(learner, run, config)
    return _fit(config, run, corpus, learner, done)


def build_learner(config: LanguageConfig, vocab_size: int, processes: Processes) -> SequenceLearner:
    """Makes a freshly initialised model with its optimiser, on the processes of a run."""
    streams = RandomStreams(config.seed)
    model = build_model(config.model, vocab_size)
    if config.sharding == "split":
        blocks = list(model.blocks) if isinstance(model, Transformer) else []
        shared: nn.Module = processes.shard(model, blocks, ["begin"])
    else:
        shared = processes.share(model)
    groups = decaying_groups(model, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    return SequenceLearner(model, shared, optimizer, config.batch, processes, streams)


def _fit(
    config: LanguageConfig, run: RunDirectory, corpus: Corpus, learner: SequenceLearner, done: int
) -> RunResult:
    model = config.model
    label = "Transformer" if isinstance(model, TransformerConfig) else model.cell.upper()
    appearance = Appearance(
        label=label,
        title=f"{label}: nats per token",
        curves={"loss": "training", "validation_loss": "validation"},
        unit="tokens",
        per_step=config.batch * config.context,
    )
    with Session(run, learner, config, appearance, done, config.threads) as session:
        return fit(session, learner, LanguageTask(config, corpus, learner.processes))


class LanguageTask:
    """To predict each token of a text from those before it.

    Args:
        config: the run.
        corpus: the text.
        processes: decide the device, and who writes.
    """

    def __init__(self, config: LanguageConfig, corpus: Corpus, processes: Processes) -> None:
        self.gradient_clip = config.gradient_clip
        self.validate_every, self.save_every = config.validate_every, config.save_every
        self._config, self._corpus, self._processes = config, corpus, processes
        self._batches: Batches
        if isinstance(config.model, TransformerConfig):
            self._batches = RandomWindows(corpus.train, config.batch, config.context, config.seed)
        else:
            self._batches = ContiguousStreams(corpus.train, config.batch, config.context)

    def batch(self, step: int, rows: slice) -> tuple[Tensor, Tensor, bool]:
        """Inputs and targets, (rows, context), and whether they continue those before."""
        batch, device = self._batches.at(step), self._processes.device
        inputs = torch.from_numpy(batch.inputs[rows]).to(device)
        targets = torch.from_numpy(batch.targets[rows]).to(device)
        return inputs, targets, batch.continues

    def loss(
        self,
        model: nn.Module,
        batch: tuple[Tensor, Tensor, bool],
        carried: RecurrentState | None,
    ) -> tuple[Tensor, dict[str, Tensor], RecurrentState | None]:
        """Nats per token, nothing else, and a recurrent model's state."""
        inputs, targets, continues = batch
        logits, state = model(inputs, carried if continues else None)
        return cross_entropy(logits.flatten(0, 1), targets.flatten()), {}, state

    def before_step(self, step: int, learner: SequenceLearner) -> dict[str, float]:
        """Sets the learning rate of the step."""
        rate = learning_rate(self._config, step)
        for group in learner.optimizer.param_groups:
            group["lr"] = rate
        return {"learning_rate": rate}

    def validate(self, model: LanguageModel) -> dict[str, float]:
        """Measures ``validation_loss`` in nats per token, and ``bits_per_character``."""
        segment_len = self._config.context
        if model.window is None:
            segment_len *= _CONTEXTS_PER_SEGMENT
        tokens = self._corpus.validation[: self._config.validation_tokens]
        loss = mean_loss(model, tokens, segment_len)
        bits = loss / math.log(2) * self._corpus.tokens_per_character
        return {"validation_loss": loss, "bits_per_character": bits}

    def finish(self, model: LanguageModel, run: RunDirectory) -> dict[str, Path]:
        """Writes samples.txt."""
        text = _draw(model, self._corpus.tokenizer, self._config.sampling)
        if self._processes.is_main:
            replace_file_or_refuse(run.sample_text_path, text.encode("utf-8"))
        return {"samples": run.sample_text_path}


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
