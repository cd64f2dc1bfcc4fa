"""PyTorch's fused operators, which know one derivative, with all further ones.

On other devices than the CPU our entry points call PyTorch's own attention and recurrent layers.
Those refuse to be differentiated twice; what they are composed of does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from fusewire.ops import dispatcher

Operator: TypeAlias = Callable[..., Sequence[torch.Tensor]]


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, fused: Operator, composed: Operator, *operands: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        needed = ctx.needs_input_grad[2:]
        with torch.enable_grad():
            leaves = [
                operand.detach().requires_grad_() if operand is not None and needs else operand
                for operand, needs in zip(operands, needed, strict=True)
            ]
            outputs = tuple(fused(*leaves))
        ctx.composed, ctx.leaves, ctx.outputs = composed, leaves, outputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*operands)
        return tuple(output.detach() for output in outputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            operands = ctx.saved_tensors
            again = dispatcher.differentiable_gradients(
                ctx.composed, operands, grad_outputs, wanted
            )
            return (None, None, *again)
        sources = [leaf for leaf, needs in zip(ctx.leaves, wanted, strict=True) if needs]
        # The graph stays, for whoever keeps the outer one may come again.
        found = iter(dispatcher.gradients(ctx.outputs, sources, grad_outputs, again=False))
        return (None, None, *(next(found) if needs else None for needs in wanted))


def differentiable(
    fused: Operator, composed: Operator, operands: Sequence[torch.Tensor | None]
) -> Sequence[torch.Tensor]:
    """Calls a fused operator so that its gradients can be differentiated again.

    Args:
        fused: PyTorch's operator; takes the operands, returns its outputs.
        composed: The same, composed of operators that have every derivative.
        operands: Tensors, or None.

    Returns:
        The outputs of `fused`.
    """
    recorded = dispatcher.is_compiling() or dispatcher.is_traced()
    if recorded or not dispatcher.needs_gradient(*operands):
        return fused(*operands)
    outputs: Sequence[torch.Tensor] = _Twice.apply(fused, composed, *operands)
    return outputs
