"""Modules in the graphs of `torch.fx`, and in those of TorchScript, where they cannot be.

The first looks into every module that is not defined in `torch.nn`, and ours cannot be looked into:
they ask for shapes. So they record themselves, as whole as the modules whose places they take.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch.fx import Proxy


def is_symbolic(input: Any) -> bool:
    """Whether `input` stands for a tensor in a graph that `torch.fx` is recording."""
    return isinstance(input, Proxy)


def recorded(module: torch.nn.Module, input: Any, *others: Any) -> Any:
    """What calling the module will give, as a part of the graph that `input` belongs to."""
    tracer = input.tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(module), (input, *others), {})


def refuse_script(module: torch.nn.Module) -> NoReturn:
    """Says that `torch.jit.script`, which compiles the Python of a module, cannot do so with ours.

    PyTorch calls it by the name ``__prepare_scriptable__``.

    Raises:
        RuntimeError: Always.
    """
    raise RuntimeError(
        f"torch.jit.script cannot compile fusewire's {type(module).__name__}; torch.export and "
        "torch.jit.trace can record it, and fw.fuse(model, undo=True) makes a fused model what it "
        "was"
    )
