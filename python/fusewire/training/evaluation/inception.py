"""Inception's features, in which the literature compares pictures; an extra.

The net of 2015 that Heusel et al. (2017) took, brought from TensorFlow to PyTorch by
torch-fidelity. torchmetrics takes the same, so that scores can be held against published ones.
"""

from __future__ import annotations

import importlib
import io
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from rich.console import Console
from torch import Tensor, nn

from fusewire.data.files import read_regular_file
from fusewire.errors import InputError
from fusewire.training.adversarial.data import SampleFormat
from fusewire.training.adversarial.samples import natural
from fusewire.training.evaluation.published import read_published, sha256
from fusewire.training.progress import TrainingProgress

_SIZE = 2048
_BATCH = 32
_CHANNELS = (1, 3)
_DIGITS = 16


@dataclass(frozen=True)
class InceptionFeatures:
    """The last pooled layer of Inception v3, 2048 numbers a picture.

    Attributes:
        net: of three channels of bytes, from 0 to 255.
        form: what the samples are; grey ones are shown in all three channels.
        digest: first digits of the SHA-256 of the file of its weights.
    """

    net: nn.Module
    form: SampleFormat
    digest: str

    @property
    def resize(self) -> str:
        """What the net itself does to pictures."""
        return "all pictures to 299 x 299 for the features, as TensorFlow 1 does"

    def features(self, samples: Tensor) -> Tensor:
        """(samples, channels, height, width), in the range of the generator, to (samples, 2048)."""
        parts: list[Tensor] = []
        console = Console(stderr=True)
        with (
            TrainingProgress(
                "inception", len(samples), console=console, unit="pictures"
            ) as progress,
            torch.inference_mode(),
        ):
            for part in torch.split(samples, _BATCH):
                pictures = torch.from_numpy(natural(part, self.form)).expand(-1, 3, -1, -1)
                parts.append(self.net(pictures)[0])
                progress.update(len(part) + _BATCH * (len(parts) - 1), {})
        return torch.cat(parts)

    def __str__(self) -> str:
        return f"Inception v3 of 2015, {_SIZE} features, weights with SHA-256 {self.digest}"


def inception_features(form: SampleFormat, weights: Path | None = None) -> InceptionFeatures:
    """Reads the net, for `fusewire.training.evaluation.report.evaluate`.

    Args:
        form: what the samples are.
        weights: a safetensors file with the tensors of torch-fidelity's net by its names; None
            takes the file that torch-fidelity publishes, fetched the first time and kept where
            PyTorch keeps such files (see `read_published`).

    Raises:
        InputError: the samples are no pictures of one or three channels, torch-fidelity is not
            installed, or the weights cannot be had or are others.

    Example:
        >>> from fusewire.training.adversarial.data import SampleFormat
        >>> inception_features(SampleFormat("audio", (1, 4096)))
        Traceback (most recent call last):
        fusewire.errors.InputError: Inception's features are of pictures, not of audio
    """
    if form.medium != "images":
        raise InputError(f"Inception's features are of pictures, not of {form.medium}")
    if form.shape[0] not in _CHANNELS:
        raise InputError(
            f"Inception's features are of grey pictures or of three channels, got {form.shape[0]}"
        )
    library = _library()
    if weights is None:
        url: str = library.URL_INCEPTION_V3
        content = read_published(url, "name another with --inception-weights")
        source = io.BytesIO(content)
        tensors = torch.load(source, weights_only=True)
    else:
        content, tensors = _read_named(weights)
    net = _net(library, tensors, weights or url)
    return InceptionFeatures(net, form, sha256(content)[:_DIGITS])


def _library() -> Any:
    try:
        return importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        raise InputError(
            f"{package} is not installed: pip install 'fusewire[inception]' brings it"
        ) from None
    except (ImportError, RuntimeError, OSError) as failure:
        # A torchvision that was built for another PyTorch does not load.
        raise InputError(
            f"torch-fidelity cannot be imported beside PyTorch {torch.__version__}: {failure}; "
            "install the torchvision that belongs to it"
        ) from failure


def _read_named(path: Path) -> tuple[bytes, Mapping[str, Tensor]]:
    try:
        content = read_regular_file(path)
    except OSError as failure:
        raise InputError(f"cannot read {path}: {failure.strerror or failure}") from failure
    try:
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as damage:
        raise InputError(
            f"{path} is no safetensors file or is damaged ({damage}); no other kind is read, "
            "because a pickle can run anything"
        ) from damage
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{path}: {name} has numbers that are not finite")
    return content, tensors


def _net(library: Any, weights: Mapping[str, Tensor], source: object) -> nn.Module:
    # Its constructor reads a file by itself, and unpickles whatever it finds: it gets one that we
    # have written of tensors just now.
    written = io.BytesIO()
    torch.save(dict(weights), written)
    written.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):  # it draws weights that are then replaced
            net: nn.Module = library.FeatureExtractorInceptionV3(
                "inception", [str(_SIZE)], feature_extractor_weights_path=written
            )
    except RuntimeError as mismatch:
        told = str(mismatch).partition("\n")[2] or str(mismatch)
        raise InputError(
            f"the weights in {source} are another net's: {textwrap.shorten(told, 200)}"
        ) from mismatch
    return net
