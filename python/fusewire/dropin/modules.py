"""Recurrent, attention and linear modules of a model, computed by our kernels from now on.

A module keeps its identity: only its class changes. So parameters stay those that the optimiser
has, and hooks, tied weights, buffers, training mode and references to the module survive.
"""

from __future__ import annotations

import importlib
import math
import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils import parametrize

from fusewire import nn
from fusewire.dropin.classes import CLASSES, LINEAR_CLASSES
from fusewire.ops.linear.rivalry import rows_that_gain

_CACHES = ("_flat_weights", "_flat_weights_names", "_flat_weight_refs")
"""What `torch.nn.RNNBase` keeps of its weights; our classes look them up when they are called."""

_ORIGIN = "_fused_from"
"""The attribute in which a module remembers what it was."""


@dataclass(frozen=True)
class Fusion:
    """What :func:`fuse` did: the names of modules, and what happened or why nothing did."""

    changed: dict[str, str] = field(default_factory=dict)
    left_alone: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name or 'the model'}: {what}" for name, what in self.changed.items()]
        lines += [
            f"{name or 'the model'} left alone: {why}" for name, why in self.left_alone.items()
        ]
        return "\n".join(lines) or "nothing to fuse"


@dataclass(frozen=True)
class _Origin:
    """What a module was before."""

    kind: type
    """Its class, without what PyTorch makes of it for parametrizations: these come and go."""
    lent: frozenset[str]
    """Attributes that our class has and that it had not."""


def fuse(model: torch.nn.Module, *, linear: bool | None = None, undo: bool = False) -> Fusion:
    """Lets the recurrent, attention and linear modules of a model run our kernels, in place.

    `torch.nn.RNN`, `LSTM`, `GRU`, their cells, `torch.nn.MultiheadAttention` and
    `TransformerEncoderLayer` get the class of that name of `fusewire.nn`, wherever they are;
    parameters, state_dict keys, hooks, parametrizations and modes stay what they are. Hugging
    Face's models whose attention is ``"sdpa"`` get ``"fusewire"`` (see
    `fusewire.dropin.transformers`). On other devices than the CPU, and in half precision where our
    kernels do not serve it, all of them go on running PyTorch's operators. What `isinstance` says
    stays true but for `torch.nn.RNN`, `LSTM` and `GRU`, whose subclasses `torch.compile` refuses.
    `torch.export` and `torch.jit.trace` take the model; `torch.jit.script` does not, and says so.

    Args:
        model: Any module; may itself be one of the above.
        linear: Whether to change `torch.nn.Linear` too, and Hugging Face's `Conv1D`, which GPT-2 is
            made of. They run our product in float32 and float64, else PyTorch's. If None, they
            are changed where ours is known to be the faster one: on AMD's CPUs with AVX-512,
            which PyTorch's library leaves unused there, and with AVX2, where ours is the faster
            one for hundreds of rows (tokens of all sequences together).
        undo: Whether to make all modules what they were before instead.

    Returns:
        The names of the modules that were changed, and of those left alone with the reason: classes
        derived from the above, compiled and quantised ones, and where `forward` was replaced.

    Raises:
        TypeError: If `model` is no module, or `linear` or `undo` no bool.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> model = torch.nn.Sequential(torch.nn.GRU(4, 8))
        >>> print(fw.fuse(model))
        0: GRU
        >>> model(torch.ones(5, 2, 4))[0].shape
        torch.Size([5, 2, 8])
        >>> print(fw.fuse(model, undo=True))
        0: GRU as before
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, but is {type(model).__name__}")
    if not (linear is None or isinstance(linear, bool)) or not isinstance(undo, bool):
        raise TypeError(
            f"linear must be True, False or None, and undo a bool, but are {linear!r} and {undo!r}"
        )
    report = Fusion()
    if linear is None:
        linear = rows_that_gain() < math.inf
    for name, module in model.named_modules():
        if _is_hugging_face(module):
            _fuse_attention(name, module, report, undo)
        if undo:
            if _ORIGIN in vars(module):
                report.changed[name] = f"{_restore(module).__name__} as before"
            continue
        kind = _kind(module)
        family = _family(module)
        if family in LINEAR_CLASSES and not (linear and kind is family):
            continue
        if family is None or _ORIGIN in vars(module):
            continue
        reason = _obstacle(module, kind, family)
        if reason is not None:
            report.left_alone[name] = reason
        else:
            _replace_class(module, kind)
            report.changed[name] = kind.__name__
    return report


def _is_hugging_face(module: torch.nn.Module) -> bool:
    models = sys.modules.get("transformers.modeling_utils")
    return models is not None and isinstance(module, models.PreTrainedModel)


def _fuse_attention(name: str, module: torch.nn.Module, report: Fusion, undo: bool) -> None:
    """Changes the attention of a model of Hugging Face and of those within it, or restores it."""
    try:
        hugging_face = importlib.import_module("fusewire.dropin.transformers")
    except ImportError as error:
        report.left_alone[name] = f"this version of transformers is not served: {error}"
        return
    if undo:
        if hugging_face.restore_attention(module):
            report.changed[name] = "attention as before"
    elif not hugging_face.has_our_attention(module):
        reason = hugging_face.replace_attention(module)
        if reason is None:
            report.changed[name] = "attention"
        else:
            report.left_alone[name] = reason


def _kind(module: torch.nn.Module) -> type:
    """The class of a module without its parametrizations."""
    kind = type(module)
    return kind.__bases__[0] if parametrize.is_parametrized(module) else kind


def _family(module: torch.nn.Module) -> type | None:
    """The class of `torch.nn` that we have something for and that the module is one of."""
    classes = CLASSES | LINEAR_CLASSES
    if isinstance(module, tuple(classes.values())):
        return None
    for family in classes:
        if isinstance(module, family):
            return family
        if _is_quantised(module) and type(module).__name__ == family.__name__:
            return family
        if isinstance(module, torch.jit.ScriptModule) and module.original_name == family.__name__:
            return family
    return None


def _is_quantised(module: torch.nn.Module) -> bool:
    return type(module).__module__.startswith("torch.ao.nn.")


def _obstacle(module: torch.nn.Module, kind: type, family: type) -> str | None:
    """Why a module stays what it is; None where nothing speaks against a change."""
    if isinstance(module, torch.jit.ScriptModule):
        return "TorchScript has compiled it"
    if _is_quantised(module):
        return "it is quantised, or made to become so"
    if kind is not family:
        return f"{kind.__name__} is a class of its own, derived from {family.__name__}"
    if "forward" in vars(module):
        return "its forward was replaced"
    return None


def _replace_class(module: torch.nn.Module, kind: type) -> None:
    ours = (CLASSES | LINEAR_CLASSES)[kind]
    lent = _attributes_beyond(ours, kind, module)
    own = vars(module)
    for name in _CACHES:
        own.pop(name, None)
    own[_ORIGIN] = _Origin(kind, frozenset(lent))
    own.update(lent)
    _become(module, ours)
    if isinstance(module, nn.Recurrent):
        module.flatten_parameters()


def _attributes_beyond(ours: Any, kind: Any, module: torch.nn.Module) -> dict[str, object]:
    """What the constructor of our class sets and the module does not have in any way."""
    if ours.__init__ is kind.__init__:
        return {}
    with torch.device("meta"):
        lender = ours(1, 1)
    return {name: value for name, value in vars(lender).items() if not hasattr(module, name)}


_OF_CLASSES = ("__dict__", "__weakref__")


def _become(module: torch.nn.Module, kind: type) -> None:
    """Gives a module another class, beneath its parametrizations."""
    if parametrize.is_parametrized(module):
        # PyTorch made a class for this module whose properties compute the parameters.
        computed = {n: value for n, value in vars(type(module)).items() if n not in _OF_CLASSES}
        kind = type(f"Parametrized{kind.__name__}", (kind,), computed)
    module.__class__ = kind


def _restore(module: torch.nn.Module) -> type:
    """Makes a module what it was; returns its class."""
    own = vars(module)
    origin: _Origin = own.pop(_ORIGIN)
    for name in origin.lent:
        own.pop(name, None)
    _become(module, origin.kind)
    if isinstance(module, torch.nn.RNNBase):
        module._flat_weights_names = [name for names in module._all_weights for name in names]
        module._init_flat_weights()
    return origin.kind
