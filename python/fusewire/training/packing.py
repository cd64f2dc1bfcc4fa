"""Models and optimisers to bytes and back: safetensors, without a pickle.

Parameters that are spread over processes (FSDP2) are put together for packing, in which all
processes take part, and spread again when they are put in place, over as many as there are then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import safetensors.torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from fusewire.config import JSON
from fusewire.errors import InputError


def pack_model(name: str, model: nn.Module, advice: str) -> bytes:
    """Turns the weights and buffers of a model into a safetensors file; tied ones are stored once.

    Args:
        name: of the model, for the message.
        model: what to pack.
        advice: end of the message when its weights are no numbers.

    Raises:
        InputError: a weight is not finite.
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first_names: dict[tuple[object, ...], str] = {}
    for key, part in model.state_dict().items():
        tensor = _whole(part)
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(
                f"training diverged: weights of the {name} are no longer finite ({key}); {advice}"
            )
        home = part.to_local() if isinstance(part, DTensor) else part
        place = (home.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first_names:
            aliases[key] = first_names[place]
        else:
            first_names[place] = key
            # A view of a larger tensor is stored alone; safetensors takes no shared memory.
            tensors[key] = tensor.cpu().contiguous().clone()
    return safetensors.torch.save(tensors, metadata={"tied": json.dumps(aliases)})


def unpack_model(content: bytes) -> dict[str, Tensor]:
    """Reads what `pack_model` wrote, tied weights under each of their names."""
    tensors = safetensors.torch.load(content)
    # The metadata sits in the JSON header, whose length is the first eight bytes.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    aliases = json.loads(header.get("__metadata__", {}).get("tied", "{}"))
    return tensors | {name: tensors[first] for name, first in aliases.items()}


def pack_optimizer(optimizer: Optimizer) -> tuple[bytes, JSON]:
    """Turns the state of an optimiser into a safetensors file, and JSON for the rest."""
    # A parameter's state is tensors (moments, step counts) and plain numbers; groups are plain.
    content = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, JSON]] = {}
    for index, entries in content["state"].items():
        plain[str(index)] = {}
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = _whole(value).cpu().contiguous().clone()
            else:
                plain[str(index)][key] = value
    packed = safetensors.torch.save(tensors)
    return packed, {"state": plain, "param_groups": content["param_groups"]}


def unpack_optimizer(content: bytes, described: Mapping[str, Any]) -> dict[str, Any]:
    """Reads what `pack_optimizer` wrote, as `Optimizer.state_dict` gave it."""
    state = {int(index): dict(plain) for index, plain in described["state"].items()}
    for name, tensor in safetensors.torch.load(content).items():
        index, key = name.split(".", 1)
        state[int(index)][key] = tensor
    groups = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()}
        for group in described["param_groups"]
    ]
    return {"state": cast(Any, state), "param_groups": groups}


def fill_model(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Puts weights in place."""
    places = model.state_dict()
    model.load_state_dict({key: _like(whole, places.get(key)) for key, whole in weights.items()})


def fill_optimizer(optimizer: Optimizer, content: dict[str, Any]) -> None:
    """Puts an optimiser's state in place.

    Raises:
        InputError: it was saved from other groups of parameters, whose order nobody knows here.
    """
    held = [len(group["params"]) for group in optimizer.param_groups]
    saved = [len(group["params"]) for group in content["param_groups"]]
    if held != saved:
        raise InputError(
            f"its optimiser held weights in groups of {saved}, where this version has {held}"
        )
    places = [place for group in optimizer.param_groups for place in group["params"]]
    state = {
        index: {
            key: _like(value, places[index]) if isinstance(value, Tensor) else value
            for key, value in entries.items()
        }
        for index, entries in content["state"].items()
        if index < len(places)
    }
    optimizer.load_state_dict(content | {"state": state})


def _whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(whole: Tensor, place: object) -> Tensor:
    # Every process has read the whole tensor and keeps its part; nothing is sent.
    if not isinstance(place, DTensor) or whole.ndim == 0:
        return whole
    whole = whole.to(place.device)
    return distribute_tensor(whole, place.device_mesh, place.placements, src_data_rank=None)
