"""PyTorch's FlexAttention, compiled for this CPU, where it knows no gradients."""

import shutil
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

Tensors = tuple[torch.Tensor, ...]
Rule = Callable[[Any, Any, Any, Any], Any]
"""What is said of a sequence, a head, a query and a key."""


def is_possible() -> bool:
    """Whether there is a compiler here."""
    return shutil.which("g++") is not None


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def attention(
    attends: Rule | None, added: torch.Tensor | None, inputs: Tensors, _: int
) -> Callable[[], Tensors]:
    """Attention of these operands, ready to run; the first call compiles for half a minute.

    Args:
        attends: Which queries attend to which keys; None for all.
        added: What is added to scores, ``(heads, query_len, key_len)``.
        inputs: Query, key and value, ``(batch, heads, length, head_dim)`` or packed as
            ``(length, heads, head_dim)``, and one more tensor that is not looked at.
    """
    is_packed = inputs[0].dim() == 3
    query, key, value = (
        tensor.transpose(0, 1)[None] if is_packed else tensor for tensor in inputs[:3]
    )
    batch, _, query_len, _ = query.shape
    mask = None
    if attends is not None:
        sizes = (batch, None, query_len, key.shape[2])
        mask = create_block_mask(attends, *sizes, device="cpu")

    def add(score: Any, _: Any, head: Any, row: Any, column: Any) -> Any:
        return score + added[head, row, column]

    def run() -> Tensors:
        with torch.no_grad():
            change = None if added is None else add
            output = _compiled()(query, key, value, score_mod=change, block_mask=mask)
        return (output[0].transpose(0, 1) if is_packed else output,)

    return run
