"""One seed for a whole run, split into streams that do not disturb each other."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fusewire.config import JSON


class RandomStreams:
    """All the randomness of a run, derived from one seed.

    The data order comes from `numpy`, a generator of its own, so that a model which draws more or
    fewer numbers (dropout, another initialisation) still sees the same batches. Initial weights,
    noise and dropout come from PyTorch's global generators; Python's `random` is seeded as well.

    Args:
        seed: any non-negative integer.

    Example:
        >>> first, second = RandomStreams(7).numpy.random(), RandomStreams(7).numpy.random()
        >>> first == second
        True
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        for_python, for_numpy, for_torch = np.random.SeedSequence(seed).spawn(3)
        random.seed(_integer(for_python))
        torch.manual_seed(_integer(for_torch))
        self.numpy = np.random.Generator(np.random.PCG64(for_numpy))

    def diverge(self, rank: int, step: int = 0) -> None:
        """Gives every process but the first its own numbers from here on, such as for dropout.

        Called after the initial weights are drawn, which are the same everywhere.

        Args:
            rank: of this process.
            step: at which a run is resumed, so that numbers drawn before it do not come again.
        """
        if rank > 0:
            torch.manual_seed(_integer(np.random.SeedSequence((self._seed, rank, step))))

    def state(self) -> JSON:
        """Returns where every stream stands, in a form that JSON can hold."""
        version, words, gauss = random.getstate()
        return {
            "python": [version, list(words), gauss],
            "numpy": self.numpy.bit_generator.state,
            "torch": _to_hex(torch.get_rng_state()),
            "cuda": [_to_hex(state) for state in _cuda_states()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts every stream back to where `state` was taken.

        GPU streams are restored on as many devices as both machines have.
        """
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        self.numpy.bit_generator.state = state["numpy"]
        torch.set_rng_state(_from_hex(state["torch"]))
        for device, saved in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(_from_hex(saved), device)


def _integer(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1  # torch takes 63 bits


def _cuda_states() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _to_hex(state: torch.Tensor) -> str:
    return bytes(state.numpy()).hex()


def _from_hex(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
