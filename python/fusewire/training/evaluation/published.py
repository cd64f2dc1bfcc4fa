"""Files that others publish on the net: fetched once, checked whenever they are read."""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from pathlib import Path

import torch
from rich.console import Console

from fusewire.errors import InputError
from fusewire.training.durable import replace_file_or_refuse
from fusewire.training.progress import TrainingProgress

_SECONDS_OF_SILENCE = 30.0
_CHUNK = 1 << 20


def read_published(url: str, instead: str) -> bytes:
    """The content of a file whose name ends in the first digits of its SHA-256.

    It is kept where PyTorch keeps such files, `torch.hub.get_dir()/checkpoints`, and is looked for
    there first; TORCH_HOME moves the folder. What has another SHA-256 is never returned or kept.

    Args:
        url: where it is published, such as ".../weights-6726825d.pth".
        instead: what to do where it cannot be had, for the end of a message.

    Raises:
        InputError: it is not there and cannot be fetched or kept, or it is another file.
    """
    name = url.rpartition("/")[2]
    named = re.search(r"-([0-9a-f]{8,64})\.", name)
    assert named is not None, f"{name} does not tell its hash"
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return _fetch(url, named[1], path, instead)
    except OSError as failure:
        raise InputError(f"cannot read {path}: {failure.strerror or failure}") from failure
    if not _is(content, named[1]):
        raise InputError(
            f"{path} is not the file that {url} names: its SHA-256 begins with "
            f"{sha256(content)[: len(named[1])]}; remove it, and it is fetched again"
        )
    return content


def sha256(content: bytes) -> str:
    """The hexadecimal digits of a SHA-256."""
    return hashlib.sha256(content).hexdigest()


def _is(content: bytes, digits: str) -> bool:
    return sha256(content).startswith(digits)


def _fetch(url: str, digits: str, path: Path, instead: str) -> bytes:
    ways = f"put the file there by other means, as {path}, or {instead}"
    try:
        # Made first: a folder that cannot be written to should not cost a long download.
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        reason = failure.strerror or failure
        raise InputError(f"cannot make {path.parent}: {reason}; {instead}") from failure
    try:
        content = _download(url, path)
    except (OSError, http.client.HTTPException) as failure:
        raise InputError(f"cannot fetch {url}: {_reason(failure)}; {ways}") from failure
    if not _is(content, digits):
        raise InputError(
            f"what came from {url}, {len(content)} bytes, is another file or a part of it: its "
            f"SHA-256 does not begin with {digits}; try again, or {ways}"
        )
    replace_file_or_refuse(path, content)
    return content


def _download(url: str, path: Path) -> bytes:
    content = bytearray()
    try:
        answering = urllib.request.urlopen(url, timeout=_SECONDS_OF_SILENCE)
    except urllib.error.HTTPError as refusal:
        refusal.close()  # it holds the connection
        raise
    with answering as answer:
        total = int(answer.headers.get("Content-Length", 0))
        console = Console(stderr=True)
        with TrainingProgress(f"{path.name}, bytes", total, console=console, unit="bytes") as shown:
            while part := answer.read(_CHUNK):
                content += part
                shown.update(len(content), {})
    return bytes(content)


def _reason(failure: Exception) -> object:
    # urllib wraps what the network said into an error of its own.
    inner = getattr(failure, "reason", None) or failure
    return getattr(inner, "strerror", None) or inner or type(failure).__name__
