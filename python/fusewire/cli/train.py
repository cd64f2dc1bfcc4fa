"""``fusewire train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from fusewire.cli.arguments import Gan, LanguageModel, Train
from fusewire.cli.report import exit_code, free_path, print_results
from fusewire.training.run_directory import RunResult

Config = TypeVar("Config")


def run(command: Train) -> int:
    """Trains what was asked for and says what came out."""
    what = command.what
    result = _train_language_model(what) if isinstance(what, LanguageModel) else _train_gan(what)
    print_results([result])
    return exit_code(result)


def _train_language_model(what: LanguageModel) -> RunResult:
    from fusewire.recipes import language
    from fusewire.training import sequence

    config = language.default(
        what.data.absolute(), what.model, context=what.context, tokenizer=what.tokenizer
    )
    config = _change(
        config,
        steps=what.steps,
        batch=what.batch,
        learning_rate=what.learning_rate,
        seed=what.seed,
        device=what.device,
    )
    return sequence.train(config, what.out or free_path(Path("runs"), what.model))


def _train_gan(what: Gan) -> RunResult:
    from fusewire.recipes import gan
    from fusewire.training import adversarial

    config = _change(
        gan.default(what.data.absolute(), seed=what.seed, device=what.device),
        steps=what.steps,
        batch_size=what.batch,
        generator_learning_rate=what.learning_rate,
        discriminator_learning_rate=what.learning_rate,
    )
    return adversarial.train(config, what.out or free_path(Path("runs"), "gan"))


def _change(config: Config, **values: Any) -> Config:
    given = {name: value for name, value in values.items() if value is not None}
    return dataclasses.replace(config, **given)  # type: ignore[type-var]
