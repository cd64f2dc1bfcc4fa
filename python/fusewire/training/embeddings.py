"""Training of word vectors: the text is read from beginning to end, several times."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fusewire.config import require_declared
from fusewire.data.samples import JARGON_TEXT
from fusewire.data.token_files import TextPieces
from fusewire.data.vocabulary import Vocabulary, sentences
from fusewire.errors import InputError
from fusewire.models.language import Subwords, WordVectors
from fusewire.ops.embeddings import Objective, WordTables
from fusewire.training.devices import memory_refusals
from fusewire.training.processes import Processes
from fusewire.training.run_directory import RunDirectory, RunResult
from fusewire.training.seeds import RandomStreams
from fusewire.training.session import Appearance, Session, agree_on_path, new_run, restore
from fusewire.training.settings import (
    require_between,
    require_counts,
    require_positive,
    require_seed,
)

KIND = "embeddings"
"""The kind of run directory that this training fills."""

VECTORS = "vectors.safetensors"


@dataclass(frozen=True, kw_only=True)
class EmbeddingsConfig:
    """Everything that decides a run. The defaults are word2vec's.

    Attributes:
        data: a UTF-8 text file, or a folder of them; ``None`` means the English sample that comes
            with the package.
        objective: ``"skip-gram"`` or ``"cbow"``.
        dim: numbers of a vector.
        window: most words to either side of the centre.
        negatives: words drawn for each window.
        least_count: rarer words are left out.
        sample: how frequent a word must be for some of its occurrences to be left out.
        epochs: how often the text is read.
        learning_rate: at the beginning.
        final_learning_rate: at the end.
        subwords: parts of words that have vectors too (fastText); ``None`` for none.
        words_per_step: words of the text that a step reads.
        windows_at_once: most windows whose scores are computed before any changes a vector.
        save_every: steps between checkpoints.
        seed: decides the first vectors and everything that is drawn.
        threads: CPU threads; ``None`` leaves them as they are.
        tensorboard: write the log for TensorBoard too.
    """

    data: Path | None = None
    objective: Objective = "skip-gram"
    dim: int = 100
    window: int = 5
    negatives: int = 5
    least_count: int = 5
    sample: float = 1e-3
    epochs: int = 5
    learning_rate: float = 0.025
    final_learning_rate: float = 0.0001
    subwords: Subwords | None = None
    words_per_step: int = 100_000
    windows_at_once: int = 256
    save_every: int = 100
    seed: int = 0
    threads: int | None = None
    tensorboard: bool = False
    total_steps: int | None = None

    def __post_init__(self) -> None:
        require_declared(self)
        require_counts(
            dim=self.dim,
            window=self.window,
            negatives=self.negatives,
            least_count=self.least_count,
            epochs=self.epochs,
            words_per_step=self.words_per_step,
            windows_at_once=self.windows_at_once,
            save_every=self.save_every,
        )
        require_between(0, 1, sample=self.sample, final_learning_rate=self.final_learning_rate)
        require_positive(learning_rate=self.learning_rate)
        require_seed(self.seed)
        if self.threads is not None:
            require_counts(threads=self.threads)

    @property
    def steps(self) -> int:
        """The step at which the run ends, once the text is known."""
        return self.total_steps or 1


class Text:
    """A text as word ids, in steps of whole sentences.

    Args:
        config: the run.
    """

    def __init__(self, config: EmbeddingsConfig) -> None:
        path = config.data or JARGON_TEXT
        hashed = hashlib.sha256()
        for piece in TextPieces(path):
            hashed.update(piece.encode("utf-8"))
        self.fingerprint = hashed.hexdigest()
        self.vocabulary = Vocabulary.of(sentences(TextPieces(path)), config.least_count)
        self._words, self._ends = self.vocabulary.encode(sentences(TextPieces(path)))
        wanted = np.arange(0, len(self._words), config.words_per_step)
        firsts = np.unique(np.searchsorted(self._ends, wanted))
        self._cuts = np.append(firsts[firsts < len(self._ends) - 1], len(self._ends) - 1)

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return len(self._cuts) - 1

    @property
    def words(self) -> int:
        """Words of one epoch."""
        return len(self._words)

    def at(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The words of a step, counted from 0, and where their sentences begin and end."""
        first, last = self._cuts[step % self.steps], self._cuts[step % self.steps + 1]
        ends = self._ends[first : last + 1]
        return self._words[ends[0] : ends[-1]], ends - ends[0]


class TablesLearner:
    """Word tables as what a session saves: their copies, put into a module when asked for.

    Args:
        config: the run.
        text: what they learn from.
        processes: one alone.
    """

    def __init__(self, config: EmbeddingsConfig, text: Text, processes: Processes) -> None:
        if processes.count > 1:
            raise InputError(f"word vectors are trained in one process, got {processes.count}")
        self.processes, self.streams = processes, RandomStreams(config.seed)
        self._config, self._vocabulary = config, text.vocabulary
        words, dim = len(text.vocabulary.words), config.dim
        rows = words + (config.subwords.buckets if config.subwords else 0)
        drawn = self.streams.numpy.random((rows, dim), np.float32)
        self._copies = nn.Module()
        self._copies.register_buffer("input", torch.from_numpy((drawn - 0.5) / dim))
        self._copies.register_buffer("output", torch.zeros(words, dim))
        self._parts = (
            config.subwords.table(list(text.vocabulary.words)) if config.subwords else None
        )
        self.tables = self._make_tables()

    def _make_tables(self) -> WordTables:
        buffers = (self._copies.get_buffer(name).numpy() for name in ("input", "output"))
        input_table, output_table = buffers
        keep, noise = self._vocabulary.keep(self._config.sample), self._vocabulary.noise()
        return WordTables(input_table, output_table, keep, noise, self._parts)

    def models(self) -> Mapping[str, nn.Module]:
        """A module with copies of both tables."""
        with torch.no_grad():
            self._copies.get_buffer("input").copy_(torch.from_numpy(self.tables.input()))
            self._copies.get_buffer("output").copy_(torch.from_numpy(self.tables.output()))
        return {"tables": self._copies}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """None: the kernel is its own."""
        return {}

    def reload(self) -> None:
        """Makes the tables from the copies, once a checkpoint has been put into them."""
        self.tables = self._make_tables()

    def vectors(self) -> WordVectors:
        """The words with their vectors, each the mean of its own and its parts'."""
        table, words = self.tables.input(), list(self._vocabulary.words)
        if self._parts is None:
            return WordVectors(words, table)
        offsets, rows = self._parts
        means = np.add.reduceat(table[rows], offsets[:-1]) / np.diff(offsets)[:, None]
        parts = table[len(words) :]
        return WordVectors(words, means.astype(np.float32), self._config.subwords, parts)


@memory_refusals()
def train(config: EmbeddingsConfig, path: Path) -> RunResult:
    """Trains word vectors and fills a run directory.

    Args:
        config: on what, how.
        path: the run directory to make.

    Returns:
        What the run left behind.

    Raises:
        InputError: data or path cannot be used.
    """
    processes = Processes("cpu")
    path = agree_on_path(processes, path)
    text = Text(config)
    config = replace(config, total_steps=config.epochs * text.steps)
    learner = TablesLearner(config, text, processes)
    with new_run(processes, path, KIND, config, text.fingerprint) as run:
        return _fit(config, run, text, learner, done=0)


@memory_refusals()
def resume(path: Path, steps: int | None = None) -> RunResult:
    """Continues a run from its newest checkpoint, bit for bit as if it had never stopped.

    Args:
        path: the run directory.
        steps: a new total of steps; by default the one the run was started with.

    Raises:
        InputError: the directory is no such run, is finished or damaged, or its data has changed.
    """
    run = RunDirectory.open(path, KIND)
    config = run.config(EmbeddingsConfig)
    if steps is not None:
        config = replace(config, total_steps=steps)
    text = Text(config)
    run.require_same_data(text.fingerprint)
    learner = TablesLearner(config, text, Processes("cpu"))
    done = restore(learner, run, config)
    learner.reload()
    return _fit(config, run, text, learner, done)


def load(path: Path) -> WordVectors:
    """The vectors that a run has made, or those in a file of `WordVectors.save`.

    Raises:
        InputError: there are none.
    """
    return WordVectors.load(path / VECTORS if path.is_dir() else path)


def _fit(
    config: EmbeddingsConfig, run: RunDirectory, text: Text, learner: TablesLearner, done: int
) -> RunResult:
    look = Appearance(
        label=config.objective,
        title=f"{config.objective}: nats per pair",
        curves={"loss": "training"},
        unit="words",
        per_step=text.words // text.steps,
    )
    first, last = config.learning_rate, config.final_learning_rate
    with Session(run, learner, config, look, done, config.threads) as session:
        for step in session.steps():
            words, ends = text.at(step - 1)
            rates = [first + (last - first) * place / config.steps for place in (step - 1, step)]
            loss = learner.tables.train(
                words,
                ends,
                config.objective,
                window=config.window,
                negatives=config.negatives,
                batch=config.windows_at_once,
                learning_rates=(rates[0], rates[1]),
                seed=_seed(config.seed, step),
            )
            ended = session.ends()
            session.log({"loss": loss}, learning_rate=rates[1])
            if ended or step % config.save_every == 0:
                session.save()
        learner.vectors().save(run.path / VECTORS)
        return session.result({"vectors": run.path / VECTORS})


def _seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])
