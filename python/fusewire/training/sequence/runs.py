"""Runs of sequence models of any kind: started, resumed, and opened for use."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from fusewire.data.tokenizers import Tokenizer, load_tokenizer
from fusewire.errors import InputError
from fusewire.models.language.blocks import Block
from fusewire.training.adam import Adam
from fusewire.training.checkpoint import load_checkpoint
from fusewire.training.devices import memory_refusals
from fusewire.training.durable import replace_file_or_refuse
from fusewire.training.processes import Processes
from fusewire.training.run_directory import RunDirectory, RunResult
from fusewire.training.seeds import RandomStreams
from fusewire.training.sequence.config import TrainingConfig
from fusewire.training.sequence.learner import SequenceLearner, decaying_groups
from fusewire.training.sequence.loop import Task, fit
from fusewire.training.session import Appearance, Session, agree_on_path, new_run, restore

Config = TypeVar("Config", bound=TrainingConfig)

_TOKENIZER = "tokenizer.json"
_CLASSES = "classes.json"

# What samples and measures call beside `forward`.
_OTHER_DOORS = ("begin", "features", "conditioned", "decode", "attention_map")


@dataclass(frozen=True)
class Vocabulary:
    """What a model must know of its data, and what a run directory keeps of them.

    Attributes:
        tokenizer: makes the token ids.
        classes: names of what a classifier tells apart; none for other models.
    """

    tokenizer: Tokenizer
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Begun:
    """What a run that is continued or measured knows of its data.

    Attributes:
        tokenizer: what it learnt with. Learnt again, it may be another one, and what it was fetched
            from may be gone.
        accept: refuses other data than the run's by their fingerprint.
    """

    tokenizer: Tokenizer
    accept: Callable[[str], None]

    @classmethod
    def of(cls, path: Path) -> Begun:
        """What a run directory says.

        Raises:
            InputError: the directory is no run, or it is damaged.
        """
        run = RunDirectory.open(path)
        return cls(load_tokenizer(run.path / _TOKENIZER), run.require_same_data)


@dataclass(frozen=True)
class Material(Generic[Config]):
    """What a run learns from.

    Attributes:
        vocabulary: its tokens and classes.
        fingerprint: hash of the data.
        task: makes what the loop asks for.
    """

    vocabulary: Vocabulary
    fingerprint: str
    task: Callable[[Config, Processes], Task]


@dataclass(frozen=True)
class Kind(Generic[Config]):
    """One kind of training.

    Attributes:
        name: what run directories call it.
        config: its configuration's dataclass.
        load: reads the data, of a run that is continued with what it knows of them.
        build: makes a freshly initialised model.
        begin: puts pre-trained weights into a new model, where the configuration names some.
        appearance: how a run looks to a person.
        groups: the optimiser's groups of parameters.
    """

    name: str
    config: type[Config]
    load: Callable[[Config, Begun | None], Material[Config]]
    build: Callable[[Config, Vocabulary], Any]
    begin: Callable[[Config, Any, Vocabulary], None]
    appearance: Callable[[Config], Appearance]
    groups: Callable[[Config, Any], list[dict[str, object]]] = lambda config, model: (
        decaying_groups(model, config.weight_decay)
    )

    @memory_refusals()
    def train(self, config: Config, path: Path) -> RunResult:
        """Trains a model and fills a run directory.

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
        material = self.load(config, None)
        learner = self.build_learner(config, material.vocabulary, processes, new=True)
        with new_run(processes, path, self.name, config, material.fingerprint) as run:
            processes.by_main(lambda: _write_vocabulary(run.path, material.vocabulary))
            return self._fit(config, run, material, learner, done=0)

    @memory_refusals()
    def resume(self, path: Path, steps: int | None = None) -> RunResult:
        """Continues a run from its newest checkpoint, bit for bit as if it had never stopped.

        Args:
            path: the run directory.
            steps: a new total of steps; by default the one the run was started with.

        Returns:
            What the run left behind.

        Raises:
            InputError: the directory is no such run, is finished or damaged, or its data has
                changed.
        """
        run = RunDirectory.open(path, self.name)
        config = run.config(self.config)
        if steps is not None:
            config = dataclasses.replace(config, steps=steps)
        processes = Processes(config.device)
        material = self.load(config, Begun.of(run.path))
        run.require_same_data(material.fingerprint)
        learner = self.build_learner(config, material.vocabulary, processes, new=False)
        done = restore(learner, run, config)
        return self._fit(config, run, material, learner, done)

    def open(self, path: Path) -> tuple[Config, Any, Vocabulary]:
        """The newest model of a run.

        Raises:
            InputError: the directory is no such run, or it is damaged.
        """
        run = RunDirectory.open(path, self.name)
        config = run.config(self.config)
        vocabulary = _read_vocabulary(run.path)
        model = self.build(config, vocabulary)
        load_checkpoint(run.checkpoint_folder, {"model": model})
        return config, model.eval(), vocabulary

    def build_learner(
        self, config: Config, vocabulary: Vocabulary, processes: Processes, *, new: bool
    ) -> SequenceLearner:
        """Makes a model with its optimiser, on the processes of a run."""
        streams = RandomStreams(config.seed)
        model = self.build(config, vocabulary)
        if new:
            self.begin(config, model, vocabulary)
        if config.sharding == "split":
            blocks: list[nn.Module] = [part for part in model.modules() if isinstance(part, Block)]
            methods = [name for name in _OTHER_DOORS if hasattr(model, name)]
            shared: nn.Module = processes.shard(model, blocks, methods)
        else:
            shared = processes.share(model)
        optimizer = Adam(
            self.groups(config, model),
            config.learning_rate,
            betas=(0.9, 0.99),
            decoupled_weight_decay=True,
        )
        return SequenceLearner(
            model, shared, optimizer, config.batch, processes, streams, config.accumulate
        )

    def _fit(
        self,
        config: Config,
        run: RunDirectory,
        material: Material[Config],
        learner: SequenceLearner,
        done: int,
    ) -> RunResult:
        look = self.appearance(config)
        with Session(run, learner, config, look, done, config.threads) as session:
            return fit(session, learner, material.task(config, learner.processes))


class ScheduledTask:
    """What tasks have in common: how often, and the learning rate of each step.

    Args:
        config: the run.
        processes: decide the device, and who writes.
    """

    def __init__(self, config: TrainingConfig, processes: Processes) -> None:
        self.gradient_clip = config.gradient_clip
        self.validate_every, self.save_every = config.validate_every, config.save_every
        self.half = config.precision == "bfloat16"
        self.processes = processes
        self._schedule = config

    def before_step(self, step: int, learner: SequenceLearner) -> dict[str, float]:
        """Sets the learning rate of the step, times each group's own ``scale``."""
        rate = self._schedule.learning_rate_at(step)
        for group in learner.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        return {"learning_rate": rate}


def start_from_nothing(config: Any, model: nn.Module, vocabulary: Vocabulary) -> None:
    """The `begin` of kinds that always start afresh."""


def _write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    replace_file_or_refuse(path / _TOKENIZER, vocabulary.tokenizer.to_json().encode())
    if vocabulary.classes:
        content = json.dumps(vocabulary.classes, ensure_ascii=False)
        replace_file_or_refuse(path / _CLASSES, content.encode())


def _read_vocabulary(path: Path) -> Vocabulary:
    tokenizer = load_tokenizer(path / _TOKENIZER)
    try:
        classes = json.loads((path / _CLASSES).read_text(encoding="utf-8"))
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ValueError("expected a list of names")
    except FileNotFoundError:
        classes = []
    except (OSError, ValueError, RecursionError) as damage:
        raise InputError(f"{path / _CLASSES} is damaged: {damage}") from damage
    return Vocabulary(tokenizer, tuple(classes))
