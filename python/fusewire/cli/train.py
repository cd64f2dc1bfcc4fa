"""``fusewire train``."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, overload

from fusewire.cli.arguments import Gan, Train
from fusewire.cli.language_arguments import (
    ClassifierTraining,
    EmbeddingsTraining,
    LanguageModel,
    Seq2SeqTraining,
    refuse_needless_size,
)
from fusewire.cli.report import exit_code, free_path, print_results
from fusewire.errors import InputError
from fusewire.training.run_directory import RunResult

Config = TypeVar("Config")

_SIZES = {"layers": "layers", "heads": "heads", "width": "embed_dim", "dropout": "dropout"}
_STEPS_OPTIONS = (
    "steps",
    "batch",
    "accumulate",
    "precision",
    "learning_rate",
    "seed",
    "device",
    "threads",
    "sharding",
    "tensorboard",
)
_GAN_OPTIONS = (
    "steps",
    "batch",
    "generator_learning_rate",
    "discriminator_learning_rate",
    "discriminator_steps",
    "last_rate",
    "real_target",
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
    if isinstance(what, LanguageModel):
        result = _train_language_model(what)
    elif isinstance(what, EmbeddingsTraining):
        result = _train_embeddings(what)
    elif isinstance(what, ClassifierTraining):
        result = _train_classifier(what)
    elif isinstance(what, Seq2SeqTraining):
        result = _train_seq2seq(what)
    else:
        result = _train_gan(what)
    print_results([result])
    return exit_code(result)


def _train_language_model(what: LanguageModel) -> RunResult:
    from fusewire.recipes import language
    from fusewire.training.sequence import language as causal
    from fusewire.training.sequence import masked

    options = (*_STEPS_OPTIONS, "tokenizer", "vocab_size", "embedding", "documents")
    _refuse_needless(what, *_SIZES, "embedding")
    data, start = _absolute(what.data), _absolute(what.start)
    model = what.model or ("transformer" if start is None else language.kind_of(start))
    out = _out(what.out, model)
    if model == "encoder":
        with _told_as_options("context"):
            encoder = language.encoder(data, context=what.context, start=start)
        return masked.train(_change(_resized(encoder, what), what, *options), out)
    with _told_as_options("model", "context"):
        config = language.default(data, model, context=what.context, start=start)
    return causal.train(_change(_resized(config, what), what, *options), out)


def _train_classifier(what: ClassifierTraining) -> RunResult:
    from fusewire.recipes import language
    from fusewire.training.sequence import classifier

    _refuse_needless(what, *_SIZES, "embedding")
    with _told_as_options("model", "most_tokens"):
        config = language.classifier(
            _absolute(what.data),
            what.model,
            most_tokens=what.most_tokens,
            start=_absolute(what.start),
        )
    texts = ("tokenizer", "vocab_size", "embedding", "packed", "balanced", "labels")
    own = (*texts, "pooling", "tuning")
    config = _change(_resized(config, what), what, *_STEPS_OPTIONS, *own)
    return classifier.train(config, _out(what.out, "classifier"))


def _train_seq2seq(what: Seq2SeqTraining) -> RunResult:
    from fusewire.recipes import language
    from fusewire.training.sequence import seq2seq

    _refuse_needless(what)
    with _told_as_options("model", "most_tokens"):
        config = language.seq2seq(
            _absolute(what.data),
            what.model,
            most_tokens=what.most_tokens,
            denoising=what.denoising,
            start=_absolute(what.start),
        )
    config = _change(config, what, *_STEPS_OPTIONS, "tokenizer", "vocab_size")
    return seq2seq.train(config, _out(what.out, "seq2seq"))


def _train_embeddings(what: EmbeddingsTraining) -> RunResult:
    from fusewire.models.language import Subwords
    from fusewire.training import embeddings

    config = embeddings.EmbeddingsConfig(
        data=_absolute(what.data), subwords=Subwords() if what.subwords else None
    )
    own = ("objective", "dim", "window", "negatives", "least_count", "epochs", "learning_rate")
    config = _change(config, what, *own, "seed", "threads")
    return embeddings.train(config, _out(what.out, "embeddings"))


def _train_gan(what: Gan) -> RunResult:
    from fusewire.recipes import gan
    from fusewire.training.adversarial.data import DataConfig
    from fusewire.training.adversarial.loop import train

    path = None if what.data is None else what.data.absolute()
    data = DataConfig(what.kind, path, what.length, what.size, what.label_column)
    with _told_as_options("weight_clip"):
        config = gan.default(data, what.model, what.loss, what.weight_clip)
    config = _change(config, what, *_GAN_OPTIONS)
    return train(config, what.out or free_path(Path("runs"), "gan"))


def _out(out: Path | None, name: str) -> Path:
    return out or free_path(Path("runs"), name)


@overload
def _absolute(path: Path) -> Path: ...
@overload
def _absolute(path: None) -> None: ...
@overload
def _absolute(path: Path | None) -> Path | None: ...
def _absolute(path: Path | None) -> Path | None:
    """Runs are resumed from other folders too."""
    return None if path is None else path.absolute()


def _resized(config: Config, what: LanguageModel | ClassifierTraining) -> Config:
    """Replaces the sizes that were given."""
    from fusewire.models.language import BagConfig, RecurrentConfig

    given = {field: getattr(what, name) for name, field in _SIZES.items()}
    sizes = {field: value for field, value in given.items() if value is not None}
    found: Any = config
    if isinstance(found.model, BagConfig) and sizes.keys() & {"layers", "heads"}:
        raise InputError("--layers and --heads are for networks, not for a bag of words")
    if isinstance(found.model, RecurrentConfig):
        if "heads" in sizes:
            raise InputError(
                f"--heads is for Transformers and encoders, not for {found.model.cell}"
            )
        if "embed_dim" in sizes:
            sizes["hidden_size"] = sizes["embed_dim"]
    try:
        model = dataclasses.replace(found.model, **sizes)
    except InputError as refusal:
        said = str(refusal)
        for option, field in _SIZES.items():
            said = re.sub(rf"\b{field}\b", f"--{option}", said)
        raise InputError(said) from None
    replaced: Config = dataclasses.replace(found, model=model)
    return replaced


def _change(config: Config, what: object, *names: str) -> Config:
    """Replaces the fields that were given as options of the same name."""
    asked: dict[str, Any] = {name: getattr(what, name) for name in names}
    given = {name: value for name, value in asked.items() if value is not None}
    with _told_as_options(*given):
        return dataclasses.replace(config, **given)  # type: ignore[type-var]


@contextlib.contextmanager
def _told_as_options(*names: str) -> Iterator[None]:
    try:
        yield
    except InputError as refusal:
        # The configuration knows fields; who typed a command knows options.
        field, rest = str(refusal).split(" ", 1)
        option = f"--{field.replace('_', '-')}" if field in names else field
        raise InputError(f"{option} {rest}") from None


def _refuse_needless(
    what: LanguageModel | ClassifierTraining | Seq2SeqTraining, *options: str
) -> None:
    """Refuses options that something else has decided: a run to start from, or a tokenizer."""
    from fusewire.recipes.tokens import brings_tokenizer

    for name in (*options, "tokenizer", "vocab_size"):
        if what.start is not None and getattr(what, name) is not None:
            option = name.replace("_", "-")
            raise InputError(f"--{option} is for new networks; leave it out with --start")
    if brings_tokenizer(what.data) and (what.tokenizer or what.vocab_size) is not None:
        raise InputError(
            f"{what.data} brings its tokenizer; leave --tokenizer and --vocab-size out"
        )
    refuse_needless_size(what.tokenizer, what.vocab_size)
