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


def _hint(default: str) -> object:
    """What help says of an option whose default is found out later."""
    return arg(help_behavior_hint=f"(default: {default})")


@dataclass(frozen=True)
class Demo:
    """Train a GAN, a Transformer and an LSTM on the samples in the package: about two minutes."""

    out: Annotated[Path | None, _hint("a new one in runs/")] = None
    """Directory to make, with one run directory for each model."""


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
    steps: Annotated[int | None, _hint("2000")] = None
    """Optimiser steps."""
    batch: Annotated[int | None, _hint("16, for recurrent models 32")] = None
    """Rows of context per step."""
    learning_rate: Annotated[float | None, _hint("by the model")] = None
    """Highest learning rate of the schedule."""
    seed: int = 0
    """Decides initial weights and the order of the data."""
    device: str = "cpu"
    """Where to train, such as cpu or cuda."""
    sharding: Literal["replicate", "split"] = "replicate"
    """What many processes, started by torchrun, do with the weights: each holds all, or a part."""
    tensorboard: bool = False
    """Write the log for TensorBoard too."""
    out: Annotated[Path | None, _hint("a new one in runs/")] = None
    """Run directory to make."""


@dataclass(frozen=True)
class Gan:
    """Train a generative adversarial network on images, sound, points or words."""

    data: Annotated[Path | None, _hint("a sample in the package")] = None
    """Images: an IDX file, an .npz file or a folder of PNGs, all of one size. Audio: a folder of
    WAV files. Vectors: an .npy file. Words: a UTF-8 text file."""
    kind: Literal["images", "audio", "vectors", "ring8", "grid25", "words"] = "images"
    """What the data are; ring8 and grid25 are points around known centres, and need no file."""
    length: Annotated[int | None, _hint("4096, 5")] = None
    """Numbers of each clip (audio), letters of each word (words)."""
    model: Annotated[
        Literal["mlp", "convolutional", "residual"] | None, _hint("mlp, for audio convolutional")
    ] = None
    """Dense networks, strided convolutions (DCGAN, WaveGAN), or residual ones (R3GAN)."""
    loss: Annotated[
        Literal[
            "minimax", "non_saturating", "least_squares", "hinge", "wasserstein", "relativistic"
        ]
        | None,
        _hint("by the model"),
    ] = None
    """What both networks minimise; norm, penalties and rates follow."""
    steps: Annotated[int | None, _hint("20000, for points 10000")] = None
    """Updates of the generator."""
    batch: Annotated[int | None, _hint("64, for points 256")] = None
    """Samples per update."""
    generator_learning_rate: Annotated[float | None, _hint("by the loss")] = None
    """Learning rate of the generator."""
    discriminator_learning_rate: Annotated[float | None, _hint("by the loss")] = None
    """Learning rate of the discriminator."""
    discriminator_steps: Annotated[int | None, _hint("1, for wasserstein 5")] = None
    """Updates of the discriminator for each of the generator."""
    real_target: float = 1.0
    """What the discriminator should say of real samples (minimax and non_saturating)."""
    weight_clip: Annotated[float | None, _hint("none")] = None
    """Largest absolute weight of the discriminator."""
    augmentations: tuple[Literal["brightness", "contrast", "translation", "cutout"], ...] = ()
    """Changes to what the discriminator sees, for few images."""
    conditioning: Annotated[Literal["concatenation", "projection"] | None, _hint("none")] = None
    """How the networks are told the class, for data with labels."""
    estimator: Literal["gumbel", "reinforce"] = "gumbel"
    """How the generator learns through the draw of a letter (words)."""
    seed: int = 0
    """Decides initial weights, noise and the order of the data."""
    device: str = "cpu"
    """Where to train, such as cpu or cuda."""
    threads: Annotated[int | None, _hint("as many as samples of this size keep busy")] = None
    """CPU threads."""
    tensorboard: bool = False
    """Write the log for TensorBoard too."""
    checkpoint_every: int = 1000
    """Steps between checkpoints and pictures."""
    frames: bool = False
    """Keep the picture of every checkpoint, for `fusewire sample --show film`."""
    out: Annotated[Path | None, _hint("a new one in runs/")] = None
    """Run directory to make."""


@dataclass(frozen=True)
class Train:
    """Train a model on your own data."""

    what: Annotated[LanguageModel, subcommand("lm")] | Annotated[Gan, subcommand("gan")]


@dataclass(frozen=True)
class Resume:
    """Continue a run that was stopped, as if it never had been."""

    run: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """The run directory."""
    steps: Annotated[int | None, _hint("as many as it was started with")] = None
    """Go on to this step."""


@dataclass(frozen=True)
class Sample:
    """Draw text, images, sound or points from a trained model."""

    run: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """The run directory."""
    prompt: Annotated[str | None, _hint("a new line")] = None
    """Text to continue (language models)."""
    length: Annotated[int | None, _hint("600")] = None
    """Tokens to add (language models)."""
    temperature: Annotated[float | None, _hint("0.8")] = None
    """Below 1 makes likely tokens likelier, 0 takes the likeliest (language models)."""
    top_k: Annotated[int | None, _hint("all")] = None
    """Draw from the k likeliest tokens only (language models)."""
    show: Annotated[Literal["interpolation", "classes", "film"] | None, _hint("samples")] = None
    """Instead of samples: ways between them, each class in its row, or the training as a GIF
    (GANs)."""
    count: Annotated[int | None, _hint("1 text, 100 samples, or 10 rows or columns")] = None
    """Texts or samples to draw."""
    seed: int = 0
    """The same seed gives the same samples."""
    out: Annotated[
        Path | None, _hint("text is printed, others go to RUN_DIR/samples-SEED with their suffix")
    ] = None
    """File to write."""


@dataclass(frozen=True)
class Evaluate:
    """Score a trained GAN against its data, and show the real samples nearest to its own."""

    run: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """The run directory."""
    count: int = 5000
    """Samples to generate, and real ones at most."""
    seed: int = 0
    """The same seed gives the same scores."""


@dataclass(frozen=True)
class Info:
    """Show what fusewire runs on: instruction set, threads, versions."""


Command: TypeAlias = (
    Annotated[Demo, subcommand("demo")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Resume, subcommand("resume")]
    | Annotated[Sample, subcommand("sample")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Info, subcommand("info")]
)


def parse(arguments: Sequence[str]) -> Demo | Train | Resume | Sample | Evaluate | Info:
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
