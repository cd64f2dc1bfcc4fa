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

from fusewire.cli.language_arguments import (
    ClassifierTraining,
    EmbeddingsTraining,
    LanguageModel,
    Seq2SeqTraining,
    TokenizerName,
    hint,
)
from fusewire.errors import InputError


@dataclass(frozen=True)
class Demo:
    """Train a GAN, a Transformer and an LSTM on the samples in the package, in some minutes."""

    out: Annotated[Path | None, hint("a new one in runs/")] = None
    """Directory to make, with one run directory for each model."""


@dataclass(frozen=True)
class Gan:
    """Train a generative adversarial network on images, sound, points or words."""

    data: Annotated[Path | None, hint("a sample in the package")] = None
    """Images: an IDX file, an .npz file or a folder of pictures. Audio: a folder of WAV files.
    Subfolders are classes. Vectors: an .npy, .npz or .csv file. Words: a UTF-8 text file."""
    kind: Literal["images", "audio", "vectors", "ring8", "grid25", "words"] = "images"
    """What the data are; ring8 and grid25 are points around known centres, and need no file."""
    length: Annotated[int | None, hint("4096, 5")] = None
    """Numbers of each clip (audio), letters of each word (words)."""
    size: Annotated[tuple[int, int] | None, hint("theirs, if it is one")] = None
    """Height and width to bring the pictures of a folder to."""
    label_column: Annotated[str | None, hint("none")] = None
    """Column of a .csv file of vectors that tells the class, by its name in the first line."""
    model: Annotated[
        Literal["mlp", "convolutional", "residual"] | None, hint("mlp, for audio convolutional")
    ] = None
    """Dense networks, strided convolutions (DCGAN, WaveGAN), or residual ones (R3GAN)."""
    loss: Annotated[
        Literal[
            "minimax", "non_saturating", "least_squares", "hinge", "wasserstein", "relativistic"
        ]
        | None,
        hint("relativistic for images, else by the model"),
    ] = None
    """What both networks minimise; norm, penalties and rates follow."""
    steps: Annotated[int | None, hint("20000, for points 10000")] = None
    """Updates of the generator."""
    batch: Annotated[int | None, hint("64, for points 256")] = None
    """Samples per update."""
    generator_learning_rate: Annotated[float | None, hint("by the loss")] = None
    """Learning rate of the generator."""
    discriminator_learning_rate: Annotated[float | None, hint("by the loss")] = None
    """Learning rate of the discriminator."""
    discriminator_steps: Annotated[int | None, hint("1, for wasserstein 5")] = None
    """Updates of the discriminator for each of the generator."""
    real_target: float = 1.0
    """What the discriminator should say of real samples (minimax and non_saturating)."""
    weight_clip: Annotated[float | None, hint("none")] = None
    """Largest absolute weight of the discriminator; takes the place of wasserstein's penalty."""
    augmentations: tuple[Literal["brightness", "contrast", "translation", "cutout"], ...] = ()
    """Changes to what the discriminator sees, for few images."""
    last_rate: Annotated[float | None, hint("1, for points 0")] = None
    """Both learning rates once the last step is done, as a part of those of the first."""
    conditioning: Annotated[Literal["concatenation", "projection"] | None, hint("none")] = None
    """How the networks are told the class, for data with labels."""
    estimator: Literal["gumbel", "reinforce"] = "gumbel"
    """How the generator learns through the draw of a letter (words)."""
    seed: int = 0
    """Decides initial weights, noise and the order of the data."""
    device: str = "cpu"
    """Where to train, such as cpu or cuda."""
    threads: Annotated[int | None, hint("as many as samples of this size keep busy")] = None
    """CPU threads."""
    tensorboard: bool = False
    """Write the log for TensorBoard too."""
    checkpoint_every: int = 1000
    """Steps between checkpoints and pictures."""
    frames: bool = False
    """Keep the picture of every checkpoint, for `fusewire sample --show film`."""
    out: Annotated[Path | None, hint("a new one in runs/")] = None
    """Run directory to make."""


@dataclass(frozen=True)
class Train:
    """Train a model on your own data."""

    what: (
        Annotated[LanguageModel, subcommand("lm")]
        | Annotated[EmbeddingsTraining, subcommand("embeddings")]
        | Annotated[ClassifierTraining, subcommand("classifier")]
        | Annotated[Seq2SeqTraining, subcommand("seq2seq")]
        | Annotated[Gan, subcommand("gan")]
    )


@dataclass(frozen=True)
class Resume:
    """Continue a run that was stopped, as if it never had been."""

    run: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """The run directory."""
    steps: Annotated[int | None, hint("as many as it was started with")] = None
    """Go on to this step."""


@dataclass(frozen=True)
class Sample:
    """Draw text, images, sound or points from a trained model."""

    run: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """The run directory."""
    prompt: Annotated[str | None, hint("a new line")] = None
    """Text to continue (language models) or to read (encoder-decoders)."""
    length: Annotated[int | None, hint("600")] = None
    """Tokens to add (language models)."""
    temperature: Annotated[float | None, hint("0.8")] = None
    """Below 1 makes likely tokens likelier, 0 takes the likeliest (language models)."""
    top_k: Annotated[int | None, hint("all")] = None
    """Draw from the k likeliest tokens only (language models)."""
    top_p: Annotated[float | None, hint("all")] = None
    """Draw from the fewest tokens whose probabilities sum to this (language models)."""
    min_p: Annotated[float | None, hint("all")] = None
    """Draw from tokens at least this fraction as probable as the likeliest (language models)."""
    repetition_penalty: Annotated[float | None, hint("1.0")] = None
    """Above 1 makes tokens that came already less likely (language models)."""
    beams: Annotated[int | None, hint("none, for encoder-decoders 4")] = None
    """Search for the most probable text, keeping so many, instead of drawing; what the options
    above leave out is not searched, and the temperature has no effect."""
    stop: tuple[str, ...] = ()
    """Texts that end the text; they are not part of it (language models)."""
    show: Annotated[Literal["interpolation", "classes", "film"] | None, hint("samples")] = None
    """Instead of samples: ways between them, each class in its row, or the training as a GIF
    (GANs)."""
    count: Annotated[int | None, hint("1 text, 100 samples, 10 clips, or 10 rows or columns")] = (
        None
    )
    """Texts or samples to draw."""
    seed: int = 0
    """The same seed gives the same samples."""
    out: Annotated[
        Path | None, hint("text is printed, others go to RUN_DIR/samples-SEED with their suffix")
    ] = None
    """File to write."""


@dataclass(frozen=True)
class Evaluate:
    """Measure what a run has made: a GAN against its data, other models on what they must know."""

    run: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """The run directory."""
    data: Annotated[Path | None, hint("what the run kept back")] = None
    """What to measure on: a text, labelled texts or pairs, by the kind of the run; for word
    vectors a file of word pairs with people's judgement."""
    analogies: Annotated[Path | None, hint("none")] = None
    """A file of analogies, four words a line (word vectors)."""
    batch: Annotated[int | None, hint("by the kind")] = None
    """Rows at a time, which does not change the result (language models, classifiers)."""
    count: Annotated[int | None, hint("5000")] = None
    """Samples to generate, and real ones at most (GANs)."""
    features: Literal["own", "inception"] = "own"
    """What samples are compared in (GANs): a classifier of the same data, or, for pictures,
    Inception, as in the literature, which fusewire[inception] brings."""
    inception_weights: Annotated[Path | None, hint("fetched once, and kept")] = None
    """A safetensors file with Inception's weights by torch-fidelity's names."""
    seed: int = 0
    """The same seed gives the same scores (GANs)."""


@dataclass(frozen=True)
class Neighbours:
    """Show the words nearest to one, or what is to the third as the second is to the first."""

    run: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """The run directory of word vectors, or a file of them."""
    words: Annotated[Positional[tuple[str, ...]], arg(metavar="WORD")]
    """One word, or three for an analogy."""
    count: int = 10
    """How many to show."""


@dataclass(frozen=True)
class Tokenize:
    """Turn text of any size into a file of tokens, from which `train lm` reads without loading."""

    data: Annotated[Positional[Path], arg(metavar="TEXT")]
    """A UTF-8 text file, or a folder of .txt files."""
    out: Annotated[Positional[Path], arg(metavar="FILE.tokens")]
    """File to write."""
    tokenizer: TokenizerName = "bytes"
    """What a token is."""
    vocab_size: Annotated[int | None, hint("8192")] = None
    """Most tokens of a tokenizer that is learnt (words, bpe, wordpiece, unigram)."""


@dataclass(frozen=True)
class Info:
    """Show what fusewire runs on: instruction set, threads, versions."""


Command: TypeAlias = (
    Annotated[Demo, subcommand("demo")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Resume, subcommand("resume")]
    | Annotated[Sample, subcommand("sample")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Neighbours, subcommand("neighbours")]
    | Annotated[Tokenize, subcommand("tokenize")]
    | Annotated[Info, subcommand("info")]
)


def parse(arguments: Sequence[str]) -> Command:
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
        content = re.sub("╭.*╮|[─│╰╯]|-{5,}", " ", complaint.getvalue())
        told = re.sub(r"(?<=Expected one of )\((.*?)\)", _in_order, " ".join(content.split()))
        raise InputError(told) from None


def _in_order(choices: re.Match[str]) -> str:
    """Choices as they can be typed; tyro's come in a random order, with what is no choice."""
    return ", ".join(sorted(set(re.findall("'(.*?)'", choices[1])) - {"None"}))
