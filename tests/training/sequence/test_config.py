"""Configurations of sequence models that are refused, and files of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusewire.config import JSON, config_from_json, config_to_json
from fusewire.errors import InputError
from fusewire.models.language import (
    BagConfig,
    ClassifierConfig,
    EncoderDecoderConfig,
    RecurrentConfig,
    RecurrentEncoderDecoderConfig,
    Sampling,
    Subwords,
    TransformerConfig,
)
from fusewire.models.language.transformer_config import RotaryScaling
from fusewire.recipes import language as recipes
from fusewire.training.embeddings import EmbeddingsConfig
from fusewire.training.sequence.classifier import ClassifierRunConfig
from fusewire.training.sequence.config import LanguageConfig, SamplingConfig
from fusewire.training.sequence.masked import MaskedConfig
from fusewire.training.sequence.seq2seq import Seq2SeqConfig

SOUND: dict[type[Any], dict[str, Any]] = {
    TransformerConfig: {},
    RotaryScaling: {"factor": 2.0},
    RecurrentConfig: {},
    BagConfig: {},
    EncoderDecoderConfig: {},
    RecurrentEncoderDecoderConfig: {},
    ClassifierConfig: {"classes": 2},
    Sampling: {},
    Subwords: {},
    SamplingConfig: {},
    LanguageConfig: {"model": RecurrentConfig()},
    MaskedConfig: {"model": TransformerConfig()},
    ClassifierRunConfig: {"model": BagConfig(), "data": Path("texts.csv")},
    Seq2SeqConfig: {"model": RecurrentEncoderDecoderConfig(), "data": Path("pairs.csv")},
    EmbeddingsConfig: {},
}
"""What each configuration cannot do without."""

WRONG: list[tuple[type[Any], str, JSON]] = [
    (TransformerConfig, "positions", "rotated"),
    (TransformerConfig, "norm", "batch"),
    (TransformerConfig, "activation", "relu"),
    (TransformerConfig, "heads", 2.5),
    (TransformerConfig, "kv_heads", "two"),
    (TransformerConfig, "rotary_scaling", "yarn"),
    (RotaryScaling, "learnt_context", 0.5),
    (RecurrentConfig, "cell", "vanilla"),
    (RecurrentConfig, "layers", 1.5),
    (BagConfig, "embed_dim", 12.5),
    (EncoderDecoderConfig, "encoder", "small"),
    (RecurrentEncoderDecoderConfig, "cell", "rnn"),
    (RecurrentEncoderDecoderConfig, "attention", "additive"),
    (ClassifierConfig, "pooling", "max"),
    (Sampling, "top_k", 2.5),
    (Subwords, "longest", 6.5),
    (SamplingConfig, "beams", 1.5),
    (LanguageConfig, "model", "lstm"),
    (LanguageConfig, "tokenizer", "chars"),
    (LanguageConfig, "documents", "pages"),
    (LanguageConfig, "precision", "half"),
    (LanguageConfig, "sharding", "fsdp"),
    (LanguageConfig, "steps", 2.5),
    (LanguageConfig, "sampling", "greedy"),
    (MaskedConfig, "tokenizer", "letters"),
    (MaskedConfig, "documents", "pages"),
    (ClassifierRunConfig, "reads", "both"),
    (ClassifierRunConfig, "pooling", "max"),
    (ClassifierRunConfig, "tuning", "adapters"),
    (Seq2SeqConfig, "learns", "translation"),
    (Seq2SeqConfig, "model", "luong"),
    (EmbeddingsConfig, "objective", "glove"),
    (EmbeddingsConfig, "dim", 99.5),
    (EmbeddingsConfig, "subwords", "characters"),
]


@pytest.mark.parametrize(("kind", "field", "value"), WRONG)
def test_what_a_field_is_not_declared_to_hold(kind: type[Any], field: str, value: JSON) -> None:
    with pytest.raises(InputError, match=rf"^{field} must be .*, got {value!r}$"):
        kind(**SOUND[kind] | {field: value})


@pytest.mark.parametrize(("kind", "field", "value"), WRONG)
def test_the_same_in_a_file(kind: type[Any], field: str, value: JSON) -> None:
    written = config_to_json(kind(**SOUND[kind]))
    assert isinstance(written, dict)
    assert config_from_json(kind, written) == kind(**SOUND[kind])
    with pytest.raises(InputError, match=rf"^config\.json\.{field}: expected .*, got {value!r}"):
        config_from_json(kind, written | {field: value}, "config.json")


@pytest.mark.parametrize("kind", [LanguageConfig, MaskedConfig, ClassifierRunConfig])
def test_an_embedding_has_one_beginning(kind: type[Any]) -> None:
    config = kind(**SOUND[kind])
    for name in ("start", "embedding"):
        dataclasses.replace(config, **{name: Path("somewhere")})
    with pytest.raises(InputError, match="embedding would take its place; leave out one of them"):
        dataclasses.replace(config, start=Path("run"), embedding=Path("vectors.safetensors"))


@pytest.mark.parametrize("recipe", [recipes.default, recipes.classifier, recipes.seq2seq])
def test_models_that_are_none(recipe: Callable[..., object]) -> None:
    with pytest.raises(InputError, match=r"model must be '.* or None, got 'perceptron'"):
        recipe(Path("text"), "perceptron")
