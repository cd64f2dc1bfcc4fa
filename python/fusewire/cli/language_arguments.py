"""What can be typed to train language models, classifiers, encoder-decoders and word vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from tyro.conf import arg

from fusewire.errors import InputError

TokenizerName: TypeAlias = Literal["bytes", "characters", "words", "bpe", "wordpiece", "unigram"]


def hint(default: str) -> object:
    """What help says of an option whose default is found out later."""
    return arg(help_behavior_hint=f"(default: {default})")


def refuse_needless_size(tokenizer: TokenizerName | None, vocab_size: int | None) -> None:
    """Refuses the size of a vocabulary that is not learnt.

    Raises:
        InputError: one was given.
    """
    if vocab_size is not None and tokenizer in (None, "bytes", "characters"):
        raise InputError(
            "--vocab-size is for tokenizers that are learnt (words, bpe, wordpiece, unigram), not "
            f"for {tokenizer or 'bytes'}; leave it out"
        )


@dataclass(frozen=True)
class Steps:
    """What every training of a sequence model can be told."""

    steps: Annotated[int | None, hint("by the model")] = None
    """Optimiser steps."""
    batch: Annotated[int | None, hint("by the model")] = None
    """Rows per step."""
    accumulate: int = 1
    """Parts in which these rows are read, where they do not fit into memory at once."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What activations are computed in; weights stay float32."""
    learning_rate: Annotated[float | None, hint("by the model")] = None
    """Highest learning rate of the schedule."""
    seed: int = 0
    """Decides initial weights and the order of the data."""
    device: str = "cpu"
    """Where to train, such as cpu or cuda."""
    threads: Annotated[int | None, hint("all")] = None
    """CPU threads."""
    sharding: Literal["replicate", "split"] = "replicate"
    """What many processes, started by torchrun, do with the weights: each holds all, or a part."""
    tensorboard: bool = False
    """Write the log for TensorBoard too."""
    out: Annotated[Path | None, hint("a new one in runs/")] = None
    """Run directory to make."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large a new network is; with --start it is as large as that run's."""

    layers: Annotated[int | None, hint("by the model")] = None
    """Layers, one on the other."""
    heads: Annotated[int | None, hint("4")] = None
    """Attention heads of a Transformer or encoder."""
    width: Annotated[int | None, hint("by the model")] = None
    """Numbers of each token's state, and of its embedding."""
    dropout: Annotated[float | None, hint("0.0")] = None
    """Part of the units that is dropped while learning."""


@dataclass(frozen=True, kw_only=True)
class LanguageModel(Steps, Sizes):
    """Train a language model on a text."""

    data: Path
    """A UTF-8 text file, a folder of .txt files, or what `fusewire tokenize` made of either."""
    model: Annotated[
        Literal["transformer", "encoder", "lstm", "gru", "rnn", "relu"] | None,
        hint("transformer, with --start that run's"),
    ] = None
    """What to train: an encoder fills in masked words, the others say what comes next."""
    tokenizer: Annotated[TokenizerName | None, hint("bytes")] = None
    """What a token is. Bytes can write any text; others are learnt from the file."""
    vocab_size: Annotated[int | None, hint("8192")] = None
    """Most tokens of a tokenizer that is learnt (words, bpe, wordpiece, unigram)."""
    context: Annotated[int | None, hint("128, with --start that run's")] = None
    """Tokens that a Transformer sees, or steps of truncated backpropagation."""
    documents: Annotated[
        Literal["lines", "paragraphs", "files"] | None, hint("the text is one")
    ] = None
    """Read each line, paragraph or file by itself; a batch packs them without padding."""
    start: Annotated[Path | None, hint("none")] = None
    """A run to go on from, with its model and tokenizer."""
    embedding: Annotated[Path | None, hint("none")] = None
    """Word vectors to start the embedding from, without --start: a run of embeddings, or a file."""


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining(Steps, Sizes):
    """Train a classifier of texts, on a pre-trained language model or from nothing."""

    data: Path
    """A .csv or .tsv file with the columns text and label, a .jsonl file with these keys, or a
    folder with a folder of texts, or a file of lines, for each class."""
    start: Annotated[Path | None, hint("none")] = None
    """A pre-trained run (train lm) to go on from."""
    model: Annotated[
        Literal["encoder", "transformer", "lstm", "gru", "rnn", "relu", "bag"] | None,
        hint("encoder, with --start that run's"),
    ] = None
    """What reads the text; a bag is the mean of its words' vectors."""
    tokenizer: Annotated[TokenizerName | None, hint("bytes")] = None
    """What a token is, without --start."""
    vocab_size: Annotated[int | None, hint("8192")] = None
    """Most tokens of a tokenizer that is learnt."""
    embedding: Annotated[Path | None, hint("none")] = None
    """Word vectors to start the embedding from, without --start: a run of embeddings, or a file."""
    most_tokens: Annotated[int | None, hint("128, with --start no more than that run saw")] = None
    """Longer texts are cut off."""
    packed: bool = False
    """Read texts one behind another, without padding."""
    pooling: Literal["last", "mean", "cls"] = "mean"
    """Which states of the text are classified."""
    tuning: Literal["full", "frozen", "gradual", "lora"] = "full"
    """What learns: everything, the head alone, one layer after another, or low-rank corrections."""
    balanced: bool = False
    """Let rare classes weigh as much as frequent ones."""
    labels: Annotated[float | None, hint("1.0")] = None
    """Part of the labelled texts to learn from."""


@dataclass(frozen=True, kw_only=True)
class Seq2SeqTraining(Steps):
    """Train an encoder-decoder on pairs of texts."""

    data: Path
    """A .csv or .tsv file with the columns source and target, or a .jsonl file with these keys;
    with --denoising what `train lm` reads."""
    model: Annotated[
        Literal["transformer", "luong", "bahdanau"] | None,
        hint("transformer, with --start that run's"),
    ] = None
    """A Transformer, or recurrent networks with either attention."""
    denoising: bool = False
    """Learn from a plain text to put back what is missing."""
    start: Annotated[Path | None, hint("none")] = None
    """A run of an encoder-decoder to go on from, with its model and tokenizer."""
    tokenizer: Annotated[TokenizerName | None, hint("bytes")] = None
    """What a token is, without --start."""
    vocab_size: Annotated[int | None, hint("8192")] = None
    """Most tokens of a tokenizer that is learnt."""
    most_tokens: Annotated[int | None, hint("64, with --start that run's")] = None
    """Longer texts are cut off."""


@dataclass(frozen=True)
class EmbeddingsTraining:
    """Train word vectors on a text."""

    data: Path
    """A UTF-8 text file, or a folder of .txt files."""
    objective: Literal["skip-gram", "cbow"] = "skip-gram"
    """What predicts a word: each of its neighbours, or their mean."""
    subwords: bool = False
    """Give parts of words vectors too (fastText), so that unknown words have some."""
    dim: int = 100
    """Numbers of a vector."""
    window: int = 5
    """Most words to either side."""
    negatives: int = 5
    """Words drawn at random for each window."""
    least_count: int = 5
    """Rarer words are left out."""
    epochs: int = 5
    """How often the text is read."""
    learning_rate: float = 0.025
    """At the beginning."""
    seed: int = 0
    """Decides the first vectors and what is drawn."""
    threads: Annotated[int | None, hint("all")] = None
    """CPU threads; they change no bit of the result."""
    out: Annotated[Path | None, hint("a new one in runs/")] = None
    """Run directory to make."""
