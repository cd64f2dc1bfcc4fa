"""Hugging Face's models with ``attn_implementation="fusewire"``.

Importing this module registers the name; a model takes it when it is made or by
``model.set_attn_implementation("fusewire")``. Its attention then runs our kernels in training and
generation, with heads of keys and masks as small as they come. ``output_attentions`` gives an empty
tuple and a warning, because no weights are kept. Models that do not look attention
functions up (BLOOM, Falcon, GPT-J) compute as they would without: where they call PyTorch's own
attention with ``"sdpa"``, ``fw.enable()`` serves them.

Example:
    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> import fusewire.dropin.transformers
    >>> sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, vocab_size=10)
    >>> config = LlamaConfig(num_attention_heads=4, num_key_value_heads=2, **sizes)
    >>> config._attn_implementation = "fusewire"
    >>> LlamaForCausalLM(config)(torch.tensor([[1, 2, 3]])).logits.shape
    torch.Size([1, 3, 10])
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import warnings
from contextlib import suppress
from typing import Any

import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedModel,
    activations,
    pytorch_utils,
)
from transformers.masking_utils import eager_mask, sdpa_mask

from fusewire.dropin.classes import CLASSES, LINEAR_CLASSES
from fusewire.dropin.linear import is_served
from fusewire.ops.activation import activate
from fusewire.ops.attention import scaled_dot_product_attention
from fusewire.ops.linear import linear

NAME = "fusewire"


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    indices: torch.Tensor | None = None,
    block_indices: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attends as a function of the library's attention interface.

    Args:
        module: The attention layer that calls.
        query: ``(batch, heads, query_len, head_dim)``.
        key: ``(batch, kv_heads, key_len, head_dim)``.
        value: ``(batch, kv_heads, key_len, value_dim)``.
        attention_mask: Broadcastable to ``(batch, heads, query_len, key_len)``, bool (True where a
            query attends) or added to the scores; with none, `is_causal` decides.
        dropout: Probability with which a weight is dropped.
        scaling: Factor of the scores; ``1 / sqrt(head_dim)`` if None.
        is_causal: Whether attention without a mask is causal; the layer's own word if None. Models
            that PyTorch's attention does not serve have it in their masks alone.
        softcap: Bound of the scores.
        s_aux: ``(heads)``, sinks.
        position_bias: ``(batch or 1, heads, query_len, key_len)``, added to the scores.
        sinks: ``(batch, heads, query_len, 1)``, a sink of each query.
        indices: ``(batch, query_len, keys)``, the only keys that a query may attend to. Models that
            choose keys put them into the mask for PyTorch's and their own attention only.
        block_indices: ``(batch, key heads, query_len, blocks)``, the same of blocks of keys, whose
            size the layer knows.
        **others: What the library hands to every function. The window of a layer is in its mask.

    Returns:
        The output ``(batch, query_len, heads, value_dim)``, and None for the weights. Where these
        are asked for, a model returns an empty tuple, as with ``"sdpa"``, and a warning says so.

    Raises:
        ValueError: If the layer's own attention depends on an argument that is not served.
    """
    for name in _read_by_own_attention(type(module).__module__) & others.keys():
        if others[name] is not None:
            raise ValueError(f'attn_implementation="{NAME}" does not serve {name}')
    if others.get("output_attentions") or _wants_weights(module):
        _tell_of_weights()
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    is_causal = bool(is_causal) and attention_mask is None and query.shape[2] > 1
    is_causal = is_causal and _takes_bool_masks(type(module).__module__)
    if indices is not None:
        attention_mask = _with_keys(attention_mask, indices, key.shape[2])
    if block_indices is not None:
        attention_mask = _with_blocks(
            module, query, key, attention_mask, block_indices, others.get("position_ids")
        )
    mask = attention_mask
    if position_bias is not None:
        mask = position_bias
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            mask = position_bias.masked_fill(~attention_mask, -torch.inf)
        elif attention_mask is not None:
            mask = position_bias + attention_mask
    output, lse = scaled_dot_product_attention(
        query,
        key,
        value,
        mask,
        dropout,
        is_causal,
        scaling,
        enable_gqa=query.shape[1] != key.shape[1],
        softcap=softcap,
        sinks=s_aux,
        return_lse=True,
    )
    if sinks is not None:
        # Beside weights whose sum is exp(lse), a sink takes exp(sink) of what they share.
        output = output * torch.sigmoid(lse[..., None] - sinks)
    return output.transpose(1, 2).contiguous(), None


def _wants_weights(module: torch.nn.Module) -> bool:
    """Whether the model's configuration asks for the weights in every call."""
    return bool(getattr(getattr(module, "config", None), "output_attentions", False))


def _tell_of_weights() -> None:
    if not torch.compiler.is_compiling():
        warnings.warn(
            f'attn_implementation="{NAME}" keeps no weights; "eager" returns them', stacklevel=3
        )


def _with_keys(mask: torch.Tensor | None, indices: torch.Tensor, keys: int) -> torch.Tensor:
    """The mask with all keys hidden but those of ``(batch, query_len, keys)``."""
    hidden = indices.new_ones((*indices.shape[:2], keys), dtype=torch.bool)
    hidden = hidden.scatter(-1, indices.long(), False).unsqueeze(1)
    if mask is None:
        return ~hidden
    if mask.dtype == torch.bool:
        return mask & ~hidden
    return mask.masked_fill(hidden, torch.finfo(mask.dtype).min)


def _with_blocks(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    blocks: torch.Tensor,
    positions: torch.Tensor | None,
) -> torch.Tensor:
    """The mask with all blocks of keys hidden but those that a layer has chosen."""
    keys = key.shape[2]
    if positions is None:
        positions = torch.arange(keys - query.shape[2], keys, device=query.device)
    positions = positions.expand(query.shape[0], -1)
    made: torch.Tensor = module.indexer.build_block_mask(
        blocks, mask, keys, query.dtype, query.device, positions
    )
    return made


def mask(*arguments: Any, config: Any = None, **options: Any) -> torch.Tensor | None:
    """Makes the mask of a layer, as a function of the library's mask interface.

    Returns:
        ``(batch, 1, query_len, key_len)``, bool, True where a query attends, or None where that
        follows from `is_causal`; what is added to scores, for models that call no such function.
    """
    if getattr(config, "num_kv_shared_layers", None):
        # Layers that share keys may be given the last queries alone, which are causal no more.
        options["allow_is_causal_skip"] = False
    if _takes_bool_masks(_modeling(type(config).__module__)):
        made: torch.Tensor | None = sdpa_mask(*arguments, config=config, **options)
    else:
        made = eager_mask(*arguments, config=config, **options)
    return made


def _modeling(configuration: str) -> str:
    """The module of the models of a configuration's module."""
    return configuration.replace(".configuration_", ".modeling_")


@functools.cache
def _takes_bool_masks(modeling: str) -> bool:
    """Whether a module's models leave masks to the function that they look up, as PyTorch's own.

    Others may add a mask to scores, extend it by what they add, or leave it to the mask alone
    whether a layer is causal.
    """
    if ".modeling_" not in modeling or modeling not in sys.modules:
        return True
    there = vars(sys.modules[modeling])
    kinds = [kind for kind in there.values() if isinstance(kind, type)]
    models: list[Any] = [kind for kind in kinds if issubclass(kind, PreTrainedModel)]
    return "ALL_ATTENTION_FUNCTIONS" in there and any(model._supports_sdpa for model in models)


_SERVED = frozenset(inspect.signature(attention).parameters)
_WITHOUT_EFFECT = frozenset({"kwargs", "output_attentions", "sliding_window"})


@functools.cache
def _read_by_own_attention(modeling: str) -> frozenset[str]:
    """What a model's own attention function takes and ours does not."""
    own = getattr(sys.modules.get(modeling), "eager_attention_forward", None)
    if own is None:
        return frozenset()
    return frozenset(inspect.signature(own).parameters) - _SERVED - _WITHOUT_EFFECT


_FORMER = "_fused_attention"
"""The attribute in which a model remembers the attention that each of its configurations named."""


def has_our_attention(model: PreTrainedModel) -> bool:
    """Whether a model computes its attention by our function."""
    return bool(model.config._attn_implementation == NAME)


def replace_attention(model: PreTrainedModel) -> str | None:
    """Gives a model our attention in the place of PyTorch's own; says why, if it stays as it is."""
    former = model.config._attn_implementation
    if former != "sdpa":
        return f'its attention is "{former}"; set_attn_implementation("{NAME}") would replace that'
    if not model._can_set_attn_implementation():
        return "its attention is not looked up by name; fw.enable() serves it"
    remembered = [(config, config._attn_implementation) for config in _configurations(model.config)]
    try:
        model.set_attn_implementation(NAME)
    except ValueError as error:
        _set_attention(remembered)
        return str(error)
    vars(model)[_FORMER] = remembered
    return None


def restore_attention(model: PreTrainedModel) -> bool:
    """Undoes :func:`replace_attention`; whether there was anything to undo."""
    remembered = vars(model).pop(_FORMER, None)
    if remembered is None:
        return False
    _set_attention(remembered)
    return True


def _configurations(config: Any) -> list[Any]:
    """A configuration and those of the models within."""
    found = [config]
    for name in config.sub_configs:
        inner = getattr(config, name, None)
        found += [] if inner is None else _configurations(inner)
    return found


def _set_attention(remembered: list[tuple[Any, str]]) -> None:
    """Names are set from the outermost configuration on, because each sets those within too."""
    for config, name in remembered:
        config._attn_implementation = name


class Conv1D(pytorch_utils.Conv1D):  # type: ignore[misc]
    """The library's linear layer with a transposed weight, computed like linear layers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Applies the layer to ``(..., nx)``; returns ``(..., nf)``."""
        # A single row reads the weight once, which is quicker as it lies.
        if not is_served(x, self.weight) or x.shape[:-1].numel() == 1:
            output: torch.Tensor = super().forward(x)
            return output
        return linear(x, self.weight.T, self.bias)


class _TanhGELU:
    """GELU by its tanh form in one operator of ours, not in eight of PyTorch's or a slower one."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Applies the activation to a tensor of any shape."""
        return activate(input, "gelu_tanh")


class NewGELUActivation(_TanhGELU, activations.NewGELUActivation):  # type: ignore[misc]
    """The library's, of GPT-2."""


class FastGELUActivation(_TanhGELU, activations.FastGELUActivation):  # type: ignore[misc]
    """The library's, the same with other brackets."""


class GELUTanh(_TanhGELU, activations.GELUTanh):  # type: ignore[misc]
    """The library's, of Gemma and SigLIP."""


_WITH_TABLES = (
    "bark.modeling_bark",
    "data2vec.modeling_data2vec_vision",
    "deepseek_ocr2.modeling_deepseek_ocr2",
    "falcon.modeling_falcon",
    "git.modeling_git",
    "gpt_neo.modeling_gpt_neo",
    "gptj.modeling_gptj",
    "sam.modeling_sam",
    "sam_hq.modeling_sam_hq",
    "superglue.modeling_superglue",
    "unlimited_ocr.modeling_unlimited_ocr",
)
"""Modules that choose the class of a layer by the name, from a table that knows no others."""


def _enter_tables() -> None:
    """Lets models with such a table be made: with the layer that calls PyTorch's own attention."""
    for modeling in _WITH_TABLES:
        with suppress(ImportError):
            there = vars(importlib.import_module(f"transformers.models.{modeling}"))
            for table in [there[name] for name in there if name.endswith("ATTENTION_CLASSES")]:
                table.setdefault(NAME, table.get("sdpa", table["eager"]))


_enter_tables()
LINEAR_CLASSES[pytorch_utils.Conv1D] = Conv1D
CLASSES[activations.NewGELUActivation] = NewGELUActivation
CLASSES[activations.FastGELUActivation] = FastGELUActivation
CLASSES[activations.GELUTanh] = GELUTanh
AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, mask)
