"""What a model can start from: a run, a saved model, or word vectors."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fusewire.data.tokenizers import Tokenizer, TokenizerKind, load_tokenizer
from fusewire.errors import InputError
from fusewire.models.language import WordVectors
from fusewire.training.run_directory import RunDirectory
from fusewire.training.sequence.runs import Begun, Kind

_READERS = {
    "language": "fusewire.training.sequence.language",
    "masked": "fusewire.training.sequence.masked",
    "seq2seq": "fusewire.training.sequence.seq2seq",
}


def open_pretrained(path: Path) -> tuple[Any, nn.Module, Tokenizer]:
    """The configuration, the newest model and the tokenizer of a run.

    Raises:
        InputError: the path is no run of a model that others can start from.
    """
    found = RunDirectory.open(path).kind
    if found not in _READERS:
        raise InputError(f'{path} is a run of kind "{found}", expected {", ".join(_READERS)}')
    kind: Kind[Any] = importlib.import_module(_READERS[found]).TRAINING
    config, model, vocabulary = kind.open(path)
    return config, model, vocabulary.tokenizer


def config_of(path: Path, *kinds: type[Any]) -> Any:
    """The configuration of a run of one of some kinds.

    Raises:
        InputError: the path is no such run.
    """
    run = RunDirectory.open(path)
    for name, module in _READERS.items():
        kind: Kind[Any] = importlib.import_module(module).TRAINING
        if run.kind == name and kind.config in kinds:
            return run.config(kind.config)
    raise InputError(f'{path} is a run of kind "{run.kind}", from which this cannot start')


def tokenizer_of(path: Path) -> Tokenizer:
    """The tokenizer of a run.

    Raises:
        InputError: the path is no run with one.
    """
    return load_tokenizer(RunDirectory.open(path).path / "tokenizer.json")


def tokenizer_for(
    begun: Begun | None, start: Path | None, kind: TokenizerKind
) -> Tokenizer | TokenizerKind:
    """What makes a run's tokens.

    Args:
        begun: the run, where it was begun before.
        start: the run that a new one goes on from.
        kind: what is to be learnt where there is neither.

    Raises:
        InputError: the run to start from has no tokenizer.
    """
    if begun is not None:
        return begun.tokenizer
    return kind if start is None else tokenizer_of(start)


def accepted_by(begun: Begun | None) -> Callable[[str], None]:
    """Refuses the fingerprints of other data than those of a run that was begun before."""
    return (lambda _: None) if begun is None else begun.accept


def start_from(path: Path, model: nn.Module) -> None:
    """Puts the weights of a run into a model of the same sizes.

    Raises:
        InputError: the path is no such run, or its model has other sizes.
    """
    _, found, _ = open_pretrained(path)
    try:
        model.load_state_dict(found.state_dict())
    except RuntimeError as mismatch:
        raise InputError(f"{path} holds a model of other sizes: {mismatch}") from mismatch


def embed_with(path: Path, embedding: nn.Embedding, tokenizer: Tokenizer) -> None:
    """Starts an embedding from word vectors.

    Args:
        path: what `WordVectors.save` wrote, or a run of embeddings.
        embedding: at least as wide as the vectors.
        tokenizer: says which text each row stands for.

    Raises:
        InputError: the file holds no word vectors, or they are wider than the embedding.
    """
    vectors = WordVectors.load(path / "vectors.safetensors" if path.is_dir() else path)
    width = vectors.vectors.shape[1]
    if width > embedding.embedding_dim:
        raise InputError(
            f"the vectors in {path} are {width} wide, the embedding {embedding.embedding_dim}; "
            "make it at least as wide"
        )
    texts = [tokenizer.decode(row) for row in _each_token(tokenizer)]
    started = torch.from_numpy(vectors.embedding(texts, embedding.embedding_dim))
    scale = embedding.weight.detach().square().mean().sqrt() / started.square().mean().sqrt()
    with torch.no_grad():
        embedding.weight[: len(texts)] = started.to(embedding.weight) * scale


def _each_token(tokenizer: Tokenizer) -> Any:
    return torch.arange(tokenizer.vocab_size)[:, None].numpy()
