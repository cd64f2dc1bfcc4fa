"""GPT-2's and Llama's weights, as Hugging Face's transformers saves them, in our Transformer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusewire.errors import InputError
from fusewire.models.language.saving import fill, read_description, read_weights
from fusewire.models.language.transformer import Transformer
from fusewire.models.language.transformer_config import (
    RotaryScaling,
    TransformerConfig,
    YarnScaling,
)


def load_huggingface(folder: str | Path) -> Transformer:
    """Makes a Transformer from a folder that transformers' ``save_pretrained`` wrote.

    Args:
        folder: holds ``config.json`` of a GPT-2 or Llama, and its ``model.safetensors``.

    Raises:
        InputError: the folder holds no such model, or one with a feature that ours lacks.

    Example:
        ``load_huggingface("gpt2")`` reads the folder ``gpt2`` that ``huggingface-cli download gpt2
        --local-dir gpt2`` made.
    """
    folder = Path(folder)
    described = read_description(folder)
    return from_huggingface(described, read_weights(folder), folder)


def from_huggingface(
    described: Mapping[str, Any], weights: Mapping[str, Tensor], source: object = "the model"
) -> Transformer:
    """Makes a Transformer from the configuration and the weights of a GPT-2 or Llama.

    Args:
        described: ``model.config.to_dict()``.
        weights: ``model.state_dict()``.
        source: how error messages call the model.

    Raises:
        InputError: it is another model, or has a feature that ours lacks.
    """
    kinds = {"gpt2": (_gpt2_config, _gpt2_weights), "llama": (_llama_config, _llama_weights)}
    kind = described.get("model_type")
    if kind not in kinds:
        raise InputError(f"{source} is a model of type {kind!r}, expected gpt2 or llama")
    make_config, rename = kinds[kind]
    try:
        config, vocab_size = make_config(described), described["vocab_size"]
        renamed = rename(weights, config)
    except KeyError as missing:
        raise InputError(f"{source} lacks {missing}, which a {kind} has") from missing
    model = Transformer(config, vocab_size)
    fill(model, renamed, source)
    return model


def _require(described: Mapping[str, Any], **expected: Any) -> None:
    for name, value in expected.items():
        if described.get(name, value) != value:
            raise InputError(
                f"{name} must be {value!r} here, but the model has {described[name]!r}"
            )


def _gpt2_config(described: Mapping[str, Any]) -> TransformerConfig:
    _require(
        described,
        activation_function="gelu_new",
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
    )
    return TransformerConfig(
        context=described["n_positions"],
        layers=described["n_layer"],
        heads=described["n_head"],
        embed_dim=described["n_embd"],
        feed_forward_dim=described.get("n_inner"),
        tied=described.get("tie_word_embeddings", True),
        norm_epsilon=described["layer_norm_epsilon"],
    )


def _llama_config(described: Mapping[str, Any]) -> TransformerConfig:
    rope = described.get("rope_parameters") or described.get("rope_scaling") or {}
    _require(described, hidden_act="silu", mlp_bias=described.get("attention_bias", False))
    return TransformerConfig(
        context=described["max_position_embeddings"],
        layers=described["num_hidden_layers"],
        heads=described["num_attention_heads"],
        embed_dim=described["hidden_size"],
        kv_heads=described.get("num_key_value_heads"),
        head_dim=described.get("head_dim"),
        feed_forward_dim=described["intermediate_size"],
        positions="rotary",
        norm="rms",
        activation="swiglu",
        bias=described.get("attention_bias", False),
        tied=described.get("tie_word_embeddings", False),
        norm_epsilon=described["rms_norm_eps"],
        rotary_base=rope.get("rope_theta", described.get("rope_theta", 10_000.0)),
        rotary_scaling=_rotary_scaling(rope, described["max_position_embeddings"]),
    )


def _rotary_scaling(rope: Mapping[str, Any], context: int) -> RotaryScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    # Dynamic scaling begins where the context of ours ends.
    if kind in ("default", "dynamic"):
        return None
    if kind == "linear":
        return RotaryScaling(rope["factor"])
    if kind == "llama3":
        return RotaryScaling(
            rope["factor"],
            rope["original_max_position_embeddings"],
            rope["low_freq_factor"],
            rope["high_freq_factor"],
        )
    if kind == "yarn":
        learnt = rope.get("original_max_position_embeddings") or context
        factor = rope.get("factor") or context / learnt
        return YarnScaling(
            factor,
            learnt,
            rope.get("beta_slow") or 1.0,
            rope.get("beta_fast") or 32.0,
            _magnitude(rope, factor),
            rope.get("truncate", True),
        )
    raise InputError(
        "rope_type must be 'default', 'dynamic', 'linear', 'llama3' or 'yarn' here, but the model "
        f"has {kind!r}"
    )


def _magnitude(rope: Mapping[str, Any], factor: float) -> float:
    """What YaRN multiplies queries and keys by: 1 + 0.1 ln(factor), or a ratio of two such."""
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    above, below = float(rope.get("mscale") or 0.0), float(rope.get("mscale_all_dim") or 0.0)
    if not (above and below):
        above, below = 1.0, 0.0
    growth = 0.1 * math.log(max(factor, 1.0))
    return (growth * above + 1) / (growth * below + 1)


def _gpt2_weights(weights: Mapping[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    # A model without its head has the same names without the first part.
    prefix = "transformer." if "transformer.wte.weight" in weights else ""
    renamed = {
        "embedding.weight": weights[f"{prefix}wte.weight"],
        "positions.weight": weights[f"{prefix}wpe.weight"],
    }
    names = {
        "attention_norm": "ln_1",
        "attention.in_proj": "attn.c_attn",
        "attention.out_proj": "attn.c_proj",
        "feed_forward_norm": "ln_2",
        "feed_forward.expand": "mlp.c_fc",
        "feed_forward.contract": "mlp.c_proj",
    }
    for layer in range(config.layers):
        for ours, theirs in names.items():
            weight = weights[f"{prefix}h.{layer}.{theirs}.weight"]
            # Their linear layers keep (input_size, output_size).
            renamed[f"blocks.{layer}.{ours}.weight"] = weight.T if weight.dim() == 2 else weight
            renamed[f"blocks.{layer}.{ours}.bias"] = weights[f"{prefix}h.{layer}.{theirs}.bias"]
    for kind in ("weight", "bias"):
        renamed[f"norm.{kind}"] = weights[f"{prefix}ln_f.{kind}"]
    return renamed | _output(weights, config)


def _llama_weights(weights: Mapping[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    prefix = "model." if "model.embed_tokens.weight" in weights else ""
    renamed = {
        "embedding.weight": weights[f"{prefix}embed_tokens.weight"],
        "norm.weight": weights[f"{prefix}norm.weight"],
    }
    kinds = ("weight", "bias") if config.bias else ("weight",)
    joined = {
        "attention.in_proj": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "attention.out_proj": ["self_attn.o_proj"],
        "feed_forward.expand": ["mlp.gate_proj", "mlp.up_proj"],
        "feed_forward.contract": ["mlp.down_proj"],
    }
    norms = {
        "attention_norm": "input_layernorm",
        "feed_forward_norm": "post_attention_layernorm",
    }
    for layer in range(config.layers):
        theirs = f"{prefix}layers.{layer}"
        for ours, parts in joined.items():
            for kind in kinds:
                found = [weights[f"{theirs}.{part}.{kind}"] for part in parts]
                renamed[f"blocks.{layer}.{ours}.{kind}"] = torch.cat(found)
        for ours, part in norms.items():
            renamed[f"blocks.{layer}.{ours}.weight"] = weights[f"{theirs}.{part}.weight"]
    return renamed | _output(weights, config)


def _output(weights: Mapping[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    return {} if config.tied else {"output.weight": weights["lm_head.weight"]}
