"""``fusewire train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from fusewire.cli.arguments import Gan, LanguageModel, Train
from fusewire.cli.report import exit_code, free_path, print_results
from fusewire.errors import InputError
from fusewire.training.run_directory import RunResult

Config = TypeVar("Config")

_LANGUAGE_OPTIONS = (
    "steps",
    "batch",
    "learning_rate",
    "seed",
    "device",
    "sharding",
    "tensorboard",
)
_GAN_OPTIONS = (
    "steps",
    "batch",
    "generator_learning_rate",
    "discriminator_learning_rate",
    "discriminator_steps",
    "real_target",
    "weight_clip",
    "augmentations",
    "conditioning",
    "estimator",
    "seed",
    "device",
    "threads",
    "tensorboard",
    "checkpoint_every",
    "frames",
)


def run(command: Train) -> int:
    """Trains what was asked for and says what came out."""
    what = command.what
    result = _train_language_model(what) if isinstance(what, LanguageModel) else _train_gan(what)
    print_results([result])
    return exit_code(result)


def _train_language_model(what: LanguageModel) -> RunResult:
    from fusewire.recipes import language
    from fusewire.training.sequence.language import train

    config = language.default(
        what.data.absolute(), what.model, context=what.context, tokenizer=what.tokenizer
    )
    config = _change(config, what, *_LANGUAGE_OPTIONS)
    return train(config, what.out or free_path(Path("runs"), what.model))


def _train_gan(what: Gan) -> RunResult:
    from fusewire.recipes import gan
    from fusewire.training.adversarial.data import DataConfig
    from fusewire.training.adversarial.loop import train

    path = None if what.data is None else what.data.absolute()
    config = gan.default(DataConfig(what.kind, path, what.length), what.model, what.loss)
    config = _change(config, what, *_GAN_OPTIONS)
    return train(config, what.out or free_path(Path("runs"), "gan"))


def _change(config: Config, what: object, *names: str) -> Config:
    """Replaces the fields that were given as options of the same name."""
    asked: dict[str, Any] = {name: getattr(what, name) for name in names}
    given = {name: value for name, value in asked.items() if value is not None}
    try:
        return dataclasses.replace(config, **given)  # type: ignore[type-var]
    except InputError as refusal:
        # The configuration knows fields; who typed a command knows options.
        field, rest = str(refusal).split(" ", 1)
        option = f"--{field.replace('_', '-')}" if field in given else field
        raise InputError(f"{option} {rest}") from None
