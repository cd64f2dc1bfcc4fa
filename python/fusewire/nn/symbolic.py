"""Modules in the graphs of `torch.fx`.

It looks into every module that is not defined in `torch.nn`, and ours cannot be looked into: they
ask for shapes. So they record themselves, as whole as the modules whose places they take.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Proxy


def is_symbolic(input: Any) -> bool:
    """Whether `input` stands for a tensor in a graph that `torch.fx` is recording."""
    return isinstance(input, Proxy)


def recorded(module: torch.nn.Module, input: Any, *others: Any) -> Any:
    """What calling the module will give, as a part of the graph that `input` belongs to."""
    tracer = input.tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(module), (input, *others), {})
