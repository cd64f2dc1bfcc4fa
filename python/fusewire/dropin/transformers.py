"""Hugging Face's models with ``attn_implementation="fusewire"``.

Importing this module registers the name; a model takes it when it is made or by
``model.set_attn_implementation("fusewire")``. Its attention then runs our kernels in training and
generation, with heads of keys and masks as small as they come. Models that do not look attention
functions up compute as with ``"eager"``, or (Falcon, GPT-J, GPT-Neo) know no names but their own:
``fw.enable()`` and ``"sdpa"`` serve those.

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
import inspect
import sys
from typing import Any

import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedModel,
    pytorch_utils,
)
from transformers.masking_utils import eager_mask, sdpa_mask

from fusewire.dropin.modules import LINEAR_CLASSES
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
        is_causal: Whether attention without a mask is causal; the layer's own word if None.
        softcap: Bound of the scores.
        s_aux: ``(heads)``, sinks.
        position_bias: ``(batch or 1, heads, query_len, key_len)``, added to the scores.
        **others: What the library hands to every function. The window of a layer is in its mask.

    Returns:
        The output ``(batch, query_len, heads, value_dim)``, and None for the weights.

    Raises:
        ValueError: If the layer's own attention depends on an argument that is not served, or the
            weights are asked for.
    """
    for name in _read_by_own_attention(type(module).__module__) & others.keys():
        if others[name] is not None:
            raise ValueError(f'attn_implementation="{NAME}" does not serve {name}')
    if others.get("output_attentions"):
        raise ValueError(f'attn_implementation="{NAME}" keeps no weights; "eager" returns them')
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    is_causal = bool(is_causal) and attention_mask is None and query.shape[2] > 1
    mask = attention_mask
    if position_bias is not None:
        mask = position_bias
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            mask = position_bias.masked_fill(~attention_mask, -torch.inf)
        elif attention_mask is not None:
            mask = position_bias + attention_mask
    output = scaled_dot_product_attention(
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
    )
    return output.transpose(1, 2).contiguous(), None


def mask(*arguments: Any, config: Any = None, **options: Any) -> torch.Tensor | None:
    """Makes the mask of a layer, as a function of the library's mask interface.

    Returns:
        ``(batch, 1, query_len, key_len)``, bool, True where a query attends, or None where that
        follows from `is_causal`; what is added to scores, for models that call no such function.
    """
    modeling = _modeling(type(config).__module__)
    if not _calls_interface(modeling):
        made: torch.Tensor | None = eager_mask(*arguments, config=config, **options)
    else:
        if not _says_whether_causal(modeling):
            options["allow_is_causal_skip"] = False
        made = sdpa_mask(*arguments, config=config, **options)
    return made


def _modeling(configuration: str) -> str:
    """The module of the models of a configuration's module."""
    return configuration.replace(".configuration_", ".modeling_")


@functools.cache
def _calls_interface(modeling: str) -> bool:
    """Whether a module's models look their attention function up."""
    if ".modeling_" not in modeling or modeling not in sys.modules:
        return True
    return hasattr(sys.modules[modeling], "ALL_ATTENTION_FUNCTIONS")


@functools.cache
def _says_whether_causal(modeling: str) -> bool:
    """Whether layers know that they are causal; those do that the library's own SDPA serves."""
    if modeling not in sys.modules:
        return True
    kinds = [kind for kind in vars(sys.modules[modeling]).values() if isinstance(kind, type)]
    models: list[Any] = [kind for kind in kinds if issubclass(kind, PreTrainedModel)]
    return any(model._supports_sdpa for model in models)


_SERVED = frozenset(inspect.signature(attention).parameters)
_WITHOUT_EFFECT = frozenset({"kwargs", "output_attentions", "sliding_window"})


@functools.cache
def _read_by_own_attention(modeling: str) -> frozenset[str]:
    """What a model's own attention function takes and ours does not."""
    own = getattr(sys.modules.get(modeling), "eager_attention_forward", None)
    if own is None:
        return frozenset()
    return frozenset(inspect.signature(own).parameters) - _SERVED - _WITHOUT_EFFECT


class Conv1D(pytorch_utils.Conv1D):  # type: ignore[misc]
    """The library's linear layer with a transposed weight, computed by :func:`fusewire.linear`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Applies the layer to ``(..., nx)``; returns ``(..., nf)``."""
        return linear(x, self.weight.T, self.bias)


LINEAR_CLASSES[pytorch_utils.Conv1D] = Conv1D
AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, mask)
