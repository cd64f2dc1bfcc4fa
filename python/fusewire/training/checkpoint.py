"""Checkpoints that survive a crash and continue a run bit for bit.

A checkpoint is a folder `step-N`: a `NAME.safetensors` for each model, a
`NAME.optimizer.safetensors` for each optimiser, `state.json` for everything else (the random state
of every process among it), and `manifest.json` with the SHA-256 of each. It is written under
another name, synced, and renamed, so that a folder of this name is complete; reading checks the
hashes and goes back to the checkpoint before when one is wrong. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from fusewire.config import JSON
from fusewire.errors import InputError
from fusewire.training.durable import sync_folder, write_synced
from fusewire.training.packing import (
    fill_model,
    fill_optimizer,
    pack_model,
    pack_optimizer,
    unpack_model,
    unpack_optimizer,
)
from fusewire.training.processes import Processes
from fusewire.training.seeds import RandomStreams

_MANIFEST = "manifest.json"
_STATE = "state.json"


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged and the one before it is used."""


@dataclass(frozen=True)
class Checkpoint:
    """What `load_checkpoint` found beside the weights that it put in place."""

    step: int
    state: Mapping[str, Any]
    path: Path


def save_checkpoint(
    folder: Path,
    step: int,
    models: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    state: Mapping[str, JSON],
    streams: RandomStreams | None = None,
    keep: int = 2,
    processes: Processes | None = None,
) -> Path:
    """Writes `folder/step-N` and removes all but the newest `keep` checkpoints.

    The first process writes; all take part.

    Args:
        folder: holds the checkpoints of one run; created when it does not exist.
        step: how many training steps the weights have seen.
        models: by name; tied weights are stored once.
        optimizers: by name.
        state: whatever else the loop must know to continue.
        streams: the random state, stored when given.
        keep: how many checkpoints stay.
        processes: those of the run; None is one alone.

    Returns:
        The path of the new checkpoint.

    Raises:
        InputError: weights are not finite, or the disk refuses; older checkpoints are untouched.
    """
    files: dict[str, bytes] = {}
    for name, model in models.items():
        files[f"{name}.safetensors"] = pack_model(name, model, last_checkpoint(folder))
    rest: dict[str, JSON] = {"step": step, "state": state, "optimizers": {}}
    described: dict[str, JSON] = {}
    for name, optimizer in optimizers.items():
        files[f"{name}.optimizer.safetensors"], described[name] = pack_optimizer(optimizer)
    rest["optimizers"] = described
    random_state = streams.state() if streams else None
    rest["streams"] = processes.gather(random_state) if processes else [random_state]
    final = folder / f"step-{step}"
    write = partial(_write, final, files, rest, keep)
    if processes:
        processes.by_main(write)
    else:
        write()
    return final


def _write(final: Path, files: dict[str, bytes], rest: Mapping[str, JSON], keep: int) -> None:
    folder, step = final.parent, rest["step"]
    files[_STATE] = json.dumps(rest).encode()
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[_MANIFEST] = json.dumps({"step": step, "sha256": hashes}, indent=1).encode()

    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_folder(final, files)
        _remove_all_but(folder, keep, newest=cast(int, step))
    except OSError as failure:
        reason = failure.strerror or failure
        raise InputError(
            f"cannot write a checkpoint to {folder}: {reason}; {last_checkpoint(folder)}"
        ) from failure


def load_checkpoint(
    folder: Path,
    models: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer] | None = None,
    streams: RandomStreams | None = None,
    rank: int = 0,
) -> Checkpoint:
    """Puts the newest undamaged checkpoint of `folder` into models, optimisers and streams.

    Args:
        folder: the folder given to `save_checkpoint`.
        models: those to fill; a checkpoint may hold more.
        optimizers: those to fill, built over the same parameters as when saved.
        streams: put back to where they stood, when given.
        rank: of this process, whose random state is taken; one that was not there gets a new one.

    Returns:
        The step and state that were stored.

    Raises:
        InputError: there is no undamaged checkpoint, or it belongs to other models.
    """
    steps = checkpoint_steps(folder)
    if not steps:
        raise InputError(f"no checkpoint in {folder}: the run ended before it saved one")
    damaged: list[str] = []
    for step in reversed(steps):
        path = folder / f"step-{step}"
        try:
            files = _read_folder(path)
            break
        # What reading hostile JSON can raise; lists nested too deeply end in RecursionError.
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as damage:
            damaged.append(f"checkpoint {path} is damaged ({damage})")
    else:
        raise InputError(f"every checkpoint in {folder} is damaged: {damaged[0]}")
    for each in damaged:
        warnings.warn(f"{each}, going back to {path.name}", CheckpointWarning, stacklevel=2)

    rest = json.loads(files[_STATE])
    # Nothing is changed before everything has been found.
    weights = {name: unpack_model(_member(files, path, name)) for name in models}
    moments = {
        name: unpack_optimizer(_member(files, path, f"{name}.optimizer"), rest["optimizers"][name])
        for name in optimizers or {}
    }
    try:
        for name, model in models.items():
            fill_model(model, weights[name])
        for name, optimizer in (optimizers or {}).items():
            fill_optimizer(optimizer, moments[name])
    except InputError as mismatch:
        raise InputError(
            f"checkpoint {path} was saved by another version of fusewire and cannot be resumed: "
            f"{mismatch}; give the run to --start of a new one, which goes on from its weights"
        ) from mismatch
    except (RuntimeError, ValueError) as mismatch:
        raise InputError(f"checkpoint {path} belongs to another model: {mismatch}") from mismatch
    if streams:
        random_states = rest["streams"]
        if rank < len(random_states) and random_states[rank]:
            streams.restore(random_states[rank])
        else:
            streams.diverge(rank, rest["step"])
    return Checkpoint(step=step, state=rest["state"], path=path)


def checkpoint_steps(folder: Path) -> list[int]:
    """Returns the steps of the finished checkpoints in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    matches = (re.fullmatch(r"step-(\d+)", path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def set_aside_after(folder: Path, step: int) -> None:
    """Takes checkpoints after a step out of the row; they were damaged when it was loaded.

    One that stayed would count among those to keep, in the place of a whole one. The next
    checkpoint that is saved removes what was set aside.

    Raises:
        InputError: the disk refuses.
    """
    try:
        for later in checkpoint_steps(folder):
            if later > step:
                damaged = folder / f"step-{later}.damaged"
                if damaged.exists():
                    shutil.rmtree(damaged)
                (folder / f"step-{later}").rename(damaged)
    except OSError as failure:
        raise InputError(
            f"cannot rename a damaged checkpoint in {folder}: {failure.strerror or failure}"
        ) from failure


def _write_folder(final: Path, files: Mapping[str, bytes]) -> None:
    unfinished = final.with_name(final.name + ".tmp")
    replaced = final.with_name(final.name + ".old")
    for leftover in (unfinished, replaced):  # of a run that was killed here
        if leftover.exists():
            shutil.rmtree(leftover)
    try:
        unfinished.mkdir()
        for name, content in files.items():
            write_synced(unfinished / name, content)
        sync_folder(unfinished)
        if final.exists():  # a run that went back to an older checkpoint comes by here again
            final.rename(replaced)
        unfinished.rename(final)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    sync_folder(final.parent)


def _remove_all_but(folder: Path, keep: int, newest: int) -> None:
    # Checkpoints after `newest` are damaged ones that this run went back behind.
    steps = checkpoint_steps(folder)
    past = [step for step in steps if step <= newest]
    for step in set(steps) - set(past[-keep:]):
        shutil.rmtree(folder / f"step-{step}")
    for ending in ("tmp", "old", "damaged"):
        for leftover in folder.glob(f"step-*.{ending}"):
            shutil.rmtree(leftover)


def _read_folder(path: Path) -> dict[str, bytes]:
    manifest = json.loads((path / _MANIFEST).read_bytes())
    files = {}
    for name, expected in manifest["sha256"].items():
        files[name] = (path / name).read_bytes()
        if hashlib.sha256(files[name]).hexdigest() != expected:
            raise ValueError(f"{name} does not match its SHA-256")
    if _STATE not in files:
        raise ValueError(f"the manifest lacks {_STATE}")
    return files


def _member(files: Mapping[str, bytes], path: Path, name: str) -> bytes:
    try:
        return files[f"{name}.safetensors"]
    except KeyError:
        held = ", ".join(sorted(files))
        raise InputError(f"checkpoint {path} holds no {name}.safetensors, only {held}") from None


def last_checkpoint(folder: Path) -> str:
    """Says in words which checkpoint of `folder` is the newest, for error messages."""
    steps = checkpoint_steps(folder)
    if not steps:
        return "no checkpoint had been saved"
    return f"the last good checkpoint is {folder / f'step-{steps[-1]}'}"
