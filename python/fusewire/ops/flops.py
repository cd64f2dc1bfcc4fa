"""How much our operators compute, in the terms of PyTorch's counter (`torch.utils.flop_counter`).

Products count, two operations for each pair of numbers; what is done to single numbers does not.
Causal masks, windows and lengths take nothing off, as PyTorch has it for its own attention; packed
sequences count with their own lengths. The counter copies its formulas when it is made, which may
be before the first call of ours, and its module takes long to import (Triton). So nothing here
imports it: formulas are given to the module where somebody else has imported it, and to the
counters that are at work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

_known: dict[torch._ops.OpOverloadPacket, Callable[..., Any]] = {}


def know(name: str, packet: torch._ops.OpOverloadPacket) -> None:
    """Lets counters count an operator that was declared, if it has products.

    Args:
        name: Of the operator, without ``fusewire::``.
        packet: The operator in `torch.ops`.
    """
    if name in _FORMULAS:
        _known[packet] = _FORMULAS[name]
        tell_counters()


def tell_counters() -> None:
    """Gives the formulas to PyTorch's counters, those at work included, once there are any."""
    module: Any = sys.modules.get("torch.utils.flop_counter")
    if not hasattr(module, "FlopCounterMode"):  # nobody's, or on its way in another thread
        return
    counters = (getattr(mode, "counter", None) for mode in _get_current_dispatch_mode_stack())
    counting = [each for each in counters if isinstance(each, module.FlopCounterMode)]
    for registry in (module.flop_registry, *(counter.flop_registry for counter in counting)):
        for packet, formula in tuple(_known.items()):
            registry.setdefault(packet, formula)


def _linear(input: torch.Tensor, weight: torch.Tensor, *_: object, **__: object) -> Any:
    return 2 * input.shape[0] * weight.numel()


def _linear_backward(
    _grad_output: torch.Tensor, input: torch.Tensor, weight: torch.Tensor, *rest: Any, **__: object
) -> Any:
    for_input, for_weight, _for_bias = rest[-3:]
    return _linear(input, weight) * (for_input + for_weight)


def _attention(*operands: Any, **_: object) -> Any:
    query, value = operands[0], operands[2]
    return 2 * _scores(operands) * (query.shape[-1] + value.shape[-1])


def _attention_backward(*arguments: Any, **_: object) -> Any:
    operands, (of_query, of_key, of_value) = arguments[4:-3], arguments[-3:]
    head_dim, value_dim = operands[0].shape[-1], operands[2].shape[-1]
    # Scores are computed again, and their gradients for queries and keys.
    by_head_dim = 1 + of_query + of_key
    by_value_dim = (of_query or of_key) + of_value
    return 2 * _scores(operands) * (by_head_dim * head_dim + by_value_dim * value_dim)


def _attention_backward_of_scores(*arguments: Any, **_: object) -> Any:
    """Scores again, and their gradients, which are summed."""
    return _attention(*arguments[4:])


def _decode_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_table: torch.Tensor | None,
    *_: object,
    **__: object,
) -> Any:
    keys = key.shape[2] if block_table is None else block_table.shape[1] * key.shape[1]
    return 2 * query.shape[:-1].numel() * keys * (query.shape[-1] + value.shape[-1])


def _scores(operands: tuple[Any, ...]) -> Any:
    """Pairs of a query and a key, over all heads."""
    query, key, packed = operands[0], operands[1], operands[-1]
    if not packed:
        return query.shape[:-1].numel() * key.shape[-2]
    sequences = operands[6].shape[0] - 1
    try:
        lengths = [offsets.diff().tolist() for offsets in operands[6:8]]
    except RuntimeError:  # numbers that are traced have no values: the longest that there can be
        lengths = [[query.shape[0]] * sequences, [key.shape[0]] * sequences]
    return query.shape[1] * sum(queries * keys for queries, keys in zip(*lengths, strict=True))


def _rnn_layer(
    input: torch.Tensor, _hidden: object, _cell: object, weights: Any, *_: object, **__: object
) -> Any:
    return 2 * input.shape[0] * sum(weight.numel() for weight in weights if weight.dim() == 2)


def _rnn_layer_backward(*arguments: Any, **_: object) -> Any:
    rows, weights, (for_input, for_weights) = arguments[3], arguments[6], arguments[-2:]
    matrices = [weight.numel() for weight in weights if weight.dim() == 2]
    of_inputs, of_states = sum(matrices[::2]), sum(matrices[1::2])
    each = of_inputs * (for_input + for_weights) + of_states * (1 + for_weights)
    return 2 * rows.shape[0] * each


_FORMULAS: dict[str, Callable[..., Any]] = {
    "linear": _linear,
    "linear_with_sums": _linear,
    "linear_backward": _linear_backward,
    "attention": _attention,
    "attention_backward": _attention_backward,
    "attention_backward_mask": _attention_backward_of_scores,
    "attention_backward_slopes": _attention_backward_of_scores,
    "decode_attention": _decode_attention,
    "rnn_layer": _rnn_layer,
    "rnn_layer_backward": _rnn_layer_backward,
}
