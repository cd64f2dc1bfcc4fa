"""Models as folders: ``config.json`` and ``model.safetensors``; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import safetensors
import safetensors.torch
from torch import nn

from fusewire.config import config_from_json, config_to_json
from fusewire.errors import InputError

Config = TypeVar("Config")

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class Saved(nn.Module, Generic[Config]):
    """A model of ``(config, vocab_size)`` that can be saved to a folder and made from it again.

    Attributes:
        KIND: what config.json calls the model.
        CONFIG: its configuration's dataclass.
    """

    KIND: ClassVar[str]
    CONFIG: ClassVar[type]
    config: Config
    vocab_size: int

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes configuration and weights.

        Args:
            folder: made if it does not exist.

        Raises:
            InputError: it cannot be written.

        Example:
            >>> import tempfile
            >>> from fusewire.models.language import Recurrent, RecurrentConfig
            >>> model = Recurrent(RecurrentConfig(embed_dim=8, hidden_size=8), vocab_size=10)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save_pretrained(folder)
            ...     Recurrent.from_pretrained(folder).config == model.config
            True
        """
        description = {
            "kind": self.KIND,
            "vocab_size": self.vocab_size,
            "config": config_to_json(self.config),
        }
        weights = {name: weight.contiguous() for name, weight in self.state_dict().items()}
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n")
            safetensors.torch.save_file(weights, folder / WEIGHTS_FILE)
        except OSError as failure:
            raise InputError(f"cannot write {folder}: {failure.strerror or failure}") from failure

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Makes the model that ``save_pretrained`` wrote.

        Args:
            folder: the folder.

        Raises:
            InputError: the folder holds no such model, or it is damaged.
        """
        description = read_description(Path(folder))
        if description.get("kind") != cls.KIND:
            raise InputError(
                f"{folder} holds a model of kind {description.get('kind')!r}, expected {cls.KIND!r}"
            )
        vocab_size = description.get("vocab_size")
        if not isinstance(vocab_size, int) or vocab_size < 1:
            raise InputError(f"{folder}/{CONFIG_FILE} is damaged: vocab_size is {vocab_size!r}")
        config: Any = config_from_json(
            cls.CONFIG, description.get("config"), f"{folder}/{CONFIG_FILE}"
        )
        model = cls(config, vocab_size)
        fill(model, read_weights(Path(folder)), folder)
        return model


def read_description(folder: Path) -> Mapping[str, Any]:
    """What a folder's config.json says.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        description = json.loads((folder / CONFIG_FILE).read_bytes())
    except OSError as failure:
        reason = failure.strerror or failure
        raise InputError(f"{folder} holds no model: {CONFIG_FILE}: {reason}") from failure
    except (ValueError, RecursionError) as damage:
        raise InputError(f"{folder}/{CONFIG_FILE} is damaged: {damage}") from damage
    if not isinstance(description, Mapping):
        raise InputError(f"{folder}/{CONFIG_FILE} is damaged: expected a JSON object")
    return description


def read_weights(folder: Path) -> dict[str, Any]:
    """The tensors of a folder, whether in one file or in several with an index.

    Raises:
        InputError: a file is missing or damaged.
    """
    files = [folder / WEIGHTS_FILE]
    try:
        if not files[0].exists():
            index = json.loads((folder / f"{WEIGHTS_FILE}.index.json").read_bytes())
            files = [folder / name for name in sorted(set(index["weight_map"].values()))]
        weights: dict[str, Any] = {}
        for file in files:
            weights |= safetensors.torch.load_file(file)
    except OSError as failure:
        reason = failure.strerror or failure
        raise InputError(f"{folder} holds no weights in {WEIGHTS_FILE}: {reason}") from failure
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError) as damage:
        raise InputError(f"the weights in {folder} are damaged: {damage}") from damage
    return weights


def fill(model: nn.Module, weights: Mapping[str, Any], source: object) -> None:
    """Puts weights into a model, all of them.

    Raises:
        InputError: names or shapes differ from the model's.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as mismatch:
        raise InputError(f"the weights in {source} are another model's: {mismatch}") from mismatch
