"""Adam for few small tensors, of whose step PyTorch spends most on preparing its one operator."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from operator import is_
from typing import Any

import torch
from torch import Tensor


def _plain_step() -> Callable[..., Any]:
    """PyTorch's step without what tells hooks and profilers of it, which ours has been told by.

    PyTorch wraps the step of every class of which there is an optimiser.
    """
    step: Callable[..., Any] = inspect.unwrap(
        torch.optim.Adam.step, stop=lambda each: not getattr(each, "hooked", False)
    )
    return step


@dataclass
class _Operands:
    """What one group's parameters need at every step, in their order."""

    parameters: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]
    counts: Tensor  # whose numbers the steps are, for they grow together

    def serves(self, parameters: list[Tensor]) -> bool:
        """Whether these are the parameters of before, and not others that have gradients now."""
        return len(parameters) == len(self.parameters) and all(
            map(is_, parameters, self.parameters)
        )


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, or AdamW where weights decay apart, with a short way to its kernel.

    State and results are those of ``torch.optim.Adam(..., fused=True)``. A step whose gradients
    belong to the parameters of the step before hands PyTorch's fused operator the lists kept from
    then; any other goes through PyTorch's own step.

    Args:
        parameters: What is learnt, or groups of it.
        lr: The learning rate.
        betas: Decays of the running means of gradients and of their squares.
        decoupled_weight_decay: Whether weights decay apart from the gradients (Loshchilov and
            Hutter 2019).

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = Adam([weight], lr=0.5)
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> weight.detach()
        tensor([0.5000, 0.5000])
    """

    def __init__(
        self,
        parameters: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        *,
        decoupled_weight_decay: bool = False,
    ) -> None:
        decay = 1e-2 if decoupled_weight_decay else 0.0  # as AdamW and Adam have it
        super().__init__(
            parameters,
            lr,
            betas,
            weight_decay=decay,
            fused=True,
            decoupled_weight_decay=decoupled_weight_decay,
        )
        self._kept: list[_Operands] = []

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Moves the parameters that have a gradient.

        Args:
            closure: Computes the loss again; it is called once, and its result returned.
        """
        if closure is None and self._move_again():
            return None
        self._kept = []
        result = _plain_step()(self, closure)
        self._keep()
        return result

    def move(self) -> None:
        """Moves as `step` does, but tells neither PyTorch's profilers nor hooks of it.

        PyTorch wraps every optimiser's `step` in what tells them, which takes 36 µs.
        """
        if not self._move_again():
            self.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets all gradients."""
        if not set_to_none:
            super().zero_grad(set_to_none=False)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes over what was saved, copied or loaded."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._kept = []

    def _keep(self) -> None:
        for group in self.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None]
            if len({(each.device, each.dtype, type(each.grad)) for each in parameters}) > 1:
                self._kept = []  # PyTorch sorts them into calls of one kind each
                return
            state = [self.state[each] for each in parameters]
            # Counts that lie together are raised by one call of little work.
            counts = torch.stack([each["step"] for each in state]) if state else torch.empty(0)
            for each, count in zip(state, counts.unbind(), strict=True):
                each["step"] = count
            self._kept.append(
                _Operands(
                    parameters,
                    [each["exp_avg"] for each in state],
                    [each["exp_avg_sq"] for each in state],
                    [each["step"] for each in state],
                    counts,
                )
            )

    @torch.no_grad()
    def _move_again(self) -> bool:
        """Moves the parameters of the step before, if they are the ones with gradients now."""
        ready = [
            [parameter for parameter in group["params"] if parameter.grad is not None]
            for group in self.param_groups
        ]
        if len(ready) != len(self._kept) or not all(map(_Operands.serves, self._kept, ready)):
            return False
        for group, kept in zip(self.param_groups, self._kept, strict=True):
            if not kept.parameters:
                continue
            first, second = group["betas"]
            update = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
            kept.counts.add_(1)
            update(
                kept.parameters,
                [each.grad for each in kept.parameters if each.grad is not None],
                kept.means,
                kept.squares,
                [],
                kept.steps,
                lr=group["lr"],
                beta1=first,
                beta2=second,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=group["maximize"],
            )
        return True
