"""PyTorch's dispatcher: schemas of operators, what our kernels serve, errors, double backward.

Imported by the first call with a tensor, never before. A family of operators declares its schemas
here when its `autograd` module is imported; the extension module has registered their CPU kernels,
which PyTorch calls without Python.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch.autograd import forward_ad

from fusewire.ops import flops
from fusewire.ops.door import attach

REAL = frozenset({torch.float32, torch.float64})
"""Types that kernels compute with as they are stored."""

STORED = REAL | {torch.bfloat16, torch.float16}
"""Types that kernels read and write."""

PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})
"""Classes of tensors that nobody has given another meaning."""


class NotServedError(Exception):
    """The operands of a call past the dispatcher are for the dispatcher."""


is_compiling = torch.compiler.is_compiling
_level = torch._C._functorch.maybe_current_level
_is_batch_of_gradients = torch._C._functorch.is_legacy_batchedtensor
_modes = torch._C._len_torch_dispatch_stack
_trace = torch._C._get_tracing_state
_autocasts = torch._C._is_any_autocast_enabled


def real_of(dtype: torch.dtype) -> torch.dtype:
    """What kernels compute with where operands are stored as `dtype`."""
    return dtype if dtype in REAL else torch.float32


def declare(name: str, schema: str, fake: Callable[..., Any]) -> torch._ops.OpOverload:
    """Declares `fusewire::name`, whose CPU kernel the extension module registers.

    Args:
        name: The operator's name, as in the Rust type that implements it.
        schema: Arguments and results, as in ``"(Tensor input) -> Tensor"``; functional, no alias.
        fake: The same function on tensors without data; gives results of the right shape.

    Returns:
        The operator's only overload, which is quicker to call than a look-up through `torch.ops`.

    Raises:
        RuntimeError: If PyTorch is older than 2.10.
    """
    attach(torch)
    tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
    torch.library.define(f"fusewire::{name}", schema, tags=tags)

    @functools.wraps(fake)
    def on_one_device(*operands: object) -> object:
        # PyTorch calls a fake, not the kernel, when one operand of several has no data.
        flat = chain.from_iterable(
            operand if isinstance(operand, (list, tuple)) else [operand] for operand in operands
        )
        devices = {operand.device for operand in flat if isinstance(operand, torch.Tensor)}
        if len(devices) > 1:
            named = ", ".join(sorted(map(str, devices)))
            raise ValueError(f"all operands must be on one device, but are on {named}")
        return fake(*operands)

    torch.library.register_fake(f"fusewire::{name}", on_one_device)
    packet: torch._ops.OpOverloadPacket = getattr(torch.ops.fusewire, name)
    flops.know(name, packet)
    overload: torch._ops.OpOverload = packet.default
    return overload


def is_served(operand: torch.Tensor, dtypes: frozenset[torch.dtype] = REAL) -> bool:
    """Whether our kernels compute with this operand; otherwise PyTorch's own operators shall.

    They do on the CPU for dense `dtypes`, outside the transforms of `torch.func`, which cannot look
    into an autograd Function of the quick kind, and outside of `torch.jit.trace`, which would
    record the sizes of its example as numbers.
    """
    if not is_compiling() and _modes() > 0:
        flops.tell_counters()  # One of the modes may be such, and older than what it would know.
    return (
        operand.is_cpu
        and operand.dtype in dtypes
        and operand.layout is torch.strided
        and not is_transformed()
        and _trace() is None
    )


def is_transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is at work."""
    return _level() is not None or forward_ad._current_level >= 0


def is_traced() -> bool:
    """Whether `torch.jit.trace` records what is called."""
    return _trace() is not None


def is_direct(*operands: Any) -> bool:
    """Whether operands may go to kernels past the dispatcher, because nobody waits there.

    They are plain tensors or parameters, and there is no mode, transform, autocast or tracing.
    """
    return PLAIN.issuperset(map(type, operands)) and not is_watched()


def takes_gradient(gradient: torch.Tensor) -> bool:
    """Whether a kernel past the dispatcher may take a gradient that came to a backward pass.

    Batches of gradients (``is_grads_batched``) look plain, but have no memory of their own.
    """
    # In this order: the compiler knows the first two only.
    plain = type(gradient) in PLAIN and not is_watched()
    return plain and not _is_batch_of_gradients(gradient)


def is_watched() -> bool:
    """Whether a mode, a transform, autocast or tracing waits in the dispatcher."""
    return (
        is_compiling()
        or _modes() > 0
        or _level() is not None
        or forward_ad._current_level >= 0
        or _trace() is not None
        or _autocasts()
    )


def autocast(*operands: Any) -> tuple[Any, ...]:
    """The operands in the type that PyTorch's autocast on the CPU gives those of its products."""
    if not torch.is_autocast_enabled("cpu"):
        return operands
    dtype = torch.get_autocast_dtype("cpu")
    return tuple(
        operand.to(dtype)
        if isinstance(operand, torch.Tensor)
        and operand.is_cpu
        and operand.is_floating_point()
        and operand.dtype != torch.float64
        else operand
        for operand in operands
    )


def needs_gradient(*operands: torch.Tensor | None) -> bool:
    """Whether autograd must see a call with these operands."""
    if torch.is_grad_enabled():
        for operand in operands:
            if operand is not None and operand.requires_grad:
                return True
    return False


def has_tangent(*operands: torch.Tensor | None) -> bool:
    """Whether forward-mode differentiation wants to know how a call with these operands changes."""
    return forward_ad._current_level >= 0 and any(
        operand is not None and forward_ad.unpack_dual(operand).tangent is not None  # type: ignore[no-untyped-call]
        for operand in operands
    )


def apply(function: type[torch.autograd.Function], *operands: Any) -> Any:
    """Calls an autograd Function; with one tensor in two places too, which the compiler refuses."""
    if torch.compiler.is_compiling():
        operands = tuple(
            operand.view_as(operand) if isinstance(operand, torch.Tensor) else operand
            for operand in operands
        )
    return function.apply(*operands)


def as_raised(error: Exception, optional: Sequence[str] = (), **operands: object) -> Exception:
    """The exception that a failed call shall end with.

    Kernels begin their message with its kind, as in ``"ValueError: bias must have ..."``, because
    PyTorch makes every error of theirs a RuntimeError.

    Args:
        error: What was caught.
        optional: The names of operands that may be None.
        operands: What shall be tensors, by name.
    """
    for name, operand in operands.items():
        if operand is None and name in optional:
            continue
        if not isinstance(operand, torch.Tensor):
            return TypeError(f"{name} must be a PyTorch tensor, but is {type(operand).__name__}")
    kind, _, message = str(error).partition(": ")
    if kind in ("ValueError", "TypeError", "MemoryError"):
        raised: Exception = getattr(builtins, kind)(message)
        return raised
    return error


def needed_now(ctx: Any, wanted: Sequence[bool]) -> tuple[bool, ...]:
    """Which of the gradients that may be wanted the running backward pass really asks for.

    A Function is told when it is called what requires a gradient. `torch.autograd.grad` of the
    input alone, as in a gradient penalty, needs no gradient of the weights.

    Args:
        ctx: Of the Function, whose tensors come first.
        wanted: `ctx.needs_input_grad` of these tensors.
    """
    nodes = iter(node for node, _ in ctx.next_functions)
    return tuple(needed and _is_run(next(nodes)) for needed in wanted)


def _is_run(node: Any) -> bool:
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:  # a leaf, and just what was asked for
        return True


def gradients(
    outputs: Sequence[torch.Tensor],
    sources: Sequence[torch.Tensor],
    grad_outputs: Sequence[torch.Tensor | None],
    again: bool,
) -> Sequence[torch.Tensor | None]:
    """The gradients of sources, in a graph that stays.

    Args:
        outputs: What was computed; an output that depends on no source counts for nothing.
        sources: What is asked for.
        grad_outputs: The gradient of each output; None for one without.
        again: Whether the gradients can be differentiated.

    Returns:
        One gradient per source; None where no output depends on it.
    """
    pairs = [
        (output, gradient)
        for output, gradient in zip(outputs, grad_outputs, strict=True)
        if gradient is not None and output.requires_grad
    ]
    if not pairs:
        return [None] * len(sources)
    given = [gradient for _, gradient in pairs]
    return torch.autograd.grad(
        [output for output, _ in pairs],
        sources,
        given,
        retain_graph=True,
        create_graph=again,
        allow_unused=True,
    )


def differentiable_gradients(
    composed: Callable[..., torch.Tensor | Sequence[torch.Tensor]],
    operands: Sequence[torch.Tensor | None],
    grad_outputs: Sequence[torch.Tensor | None],
    wanted: Sequence[bool],
) -> tuple[torch.Tensor | None, ...]:
    """Gradients that can be differentiated again.

    Args:
        composed: The operator composed of PyTorch's own operators.
        operands: What it is called with.
        grad_outputs: The gradient of each of its outputs; None for one without.
        wanted: Whether the gradient of each operand is wanted.

    Returns:
        One gradient per operand; None where it is not wanted or there is no operand.
    """
    with torch.enable_grad():
        # Aliases, so that a gradient follows its own operand only, even where one operand was
        # computed from another.
        aliases = [
            operand.view_as(operand) if operand is not None and needed else operand
            for operand, needed in zip(operands, wanted, strict=True)
        ]
        results = composed(*aliases)
        outputs = [results] if isinstance(results, torch.Tensor) else results
        sources = [
            alias
            for alias, needed in zip(aliases, wanted, strict=True)
            if needed and alias is not None
        ]
        found = iter(gradients(outputs, sources, grad_outputs, again=True))
    return tuple(
        next(found) if needed and alias is not None else None
        for alias, needed in zip(aliases, wanted, strict=True)
    )
