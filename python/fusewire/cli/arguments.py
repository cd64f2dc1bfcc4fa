"""What can be typed, as dataclasses: the fields are the options, the docstrings are the help."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import tyro
from tyro.conf import (
    DisallowNone,
    OmitArgPrefixes,
    OmitSubcommandPrefixes,
    Positional,
    arg,
    subcommand,
)

from fusewire.errors import InputError


@dataclass(frozen=True)
class Demo:
    """Train a GAN, a Transformer and an LSTM on the samples in the package: about two minutes."""

    out: Path | None = None
    """Directory to make, with one run directory for each model. By default a new one in runs/."""


@dataclass(frozen=True)
class LanguageModel:
    """Train a language model on a text file."""

    data: Path
    """A UTF-8 text file."""
    model: Literal["transformer", "lstm", "gru", "rnn"] = "transformer"
    """What to train."""
    tokenizer: Literal["bytes", "characters"] = "bytes"
    """What a token is. Bytes can write any text; characters only those that the file holds."""
    context: int = 128
    """Tokens that a Transformer sees, or steps of truncated backpropagation."""
    steps: int | None = None
    """Optimiser steps."""
    batch: int | None = None
    """Rows of context per step."""
    learning_rate: float | None = None
    """Highest learning rate of the schedule."""
    seed: int = 0
    """Decides initial weights and the order of the data."""
    device: str = "cpu"
    """Where to train, such as cpu or cuda."""
    out: Path | None = None
    """Run directory to make. By default a new one in runs/."""


@dataclass(frozen=True)
class Gan:
    """Train a generative adversarial network on images."""

    data: Path
    """An IDX file, an .npz file or a folder of PNGs, all images of one size."""
    steps: int | None = None
    """Updates of each network."""
    batch: int | None = None
    """Images per step."""
    learning_rate: float | None = None
    """Learning rate of both networks."""
    seed: int = 0
    """Decides initial weights, noise and the order of the data."""
    device: str = "cpu"
    """Where to train, such as cpu or cuda."""
    out: Path | None = None
    """Run directory to make. By default a new one in runs/."""


@dataclass(frozen=True)
class Train:
    """Train a model on your own data."""

    what: Annotated[LanguageModel, subcommand("lm")] | Annotated[Gan, subcommand("gan")]


@dataclass(frozen=True)
class Resume:
    """Continue a run that was stopped, as if it never had been."""

    run: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """The run directory."""


@dataclass(frozen=True)
class Sample:
    """Draw text or images from a trained model."""

    run: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """The run directory."""
    prompt: str | None = None
    """Text to continue (language models)."""
    length: int | None = None
    """Tokens to add (language models). 600 by default."""
    temperature: float | None = None
    """Below 1 makes likely tokens likelier, 0 takes the likeliest (language models).
    0.8 by default."""
    top_k: int | None = None
    """Draw from the k likeliest tokens only (language models)."""
    count: int | None = None
    """Texts or images to draw. One text or 100 images by default."""
    seed: int = 0
    """The same seed gives the same samples."""
    out: Path | None = None
    """File to write. By default text is printed, and images go to RUN_DIR/samples-SEED.png."""


@dataclass(frozen=True)
class Info:
    """Show what fusewire runs on: instruction set, threads, versions."""


Command: TypeAlias = (
    Annotated[Demo, subcommand("demo")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Resume, subcommand("resume")]
    | Annotated[Sample, subcommand("sample")]
    | Annotated[Info, subcommand("info")]
)


def parse(arguments: Sequence[str]) -> Demo | Train | Resume | Sample | Info:
    """Turns what was typed into a command; prints help and exits where that was asked for.

    Raises:
        InputError: what was typed is no command.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                Command,
                prog="fusewire",
                description="Train generative models on a CPU or GPU, and sample from them.",
                args=arguments,
                config=(DisallowNone, OmitArgPrefixes, OmitSubcommandPrefixes),
            )
    except SystemExit as ended:
        if ended.code in (0, None):
            raise
        # tyro draws a box of several lines with a title; a refusal of ours is one line.
        content = re.sub("╭.*╮|[─│╰╯]", " ", complaint.getvalue())
        raise InputError(" ".join(content.split())) from None
