"""An encoder-decoder with its sources read: a causal language model like any other."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Decoder(Protocol):
    """What an encoder-decoder does once the source has been read."""

    training: bool

    @property
    def window(self) -> int | None:
        """Most tokens of a target; ``None`` when nothing bounds them."""

    def decode(self, target: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits after each new token of the target, and the state after the last."""

    def fresh(self, state: Any) -> Any:
        """The state before the first token of the target."""

    def select(self, state: Any, rows: Tensor) -> Any:
        """The state of the given rows."""

    def train(self, mode: bool = True) -> Any:
        """Switches dropout on or off."""


class Conditioned:
    """The language model of the targets of given sources.

    Args:
        model: the encoder-decoder.
        state: what it knows of the sources.
    """

    def __init__(self, model: Decoder, state: Any) -> None:
        self._model = model
        self._state = state

    @property
    def training(self) -> bool:
        """Whether dropout is on."""
        return self._model.training

    @property
    def window(self) -> int | None:
        """Most tokens of a target."""
        return self._model.window

    def train(self, mode: bool = True) -> Any:
        """Switches dropout on or off."""
        return self._model.train(mode)

    def begin(self, tokens: Tensor, padding: Tensor | None) -> tuple[Tensor, Any]:
        """Reads the beginnings of targets, one for each source."""
        if padding is not None:
            raise ValueError("targets begin together: their prompts must be equally long")
        sources = len(self._state.hidden)
        if len(tokens) != sources:
            raise ValueError(
                f"expected one prompt for each of {sources} sources, got {len(tokens)}"
            )
        logits, state = self._model.decode(tokens, self._model.fresh(self._state))
        return logits[:, -1], state

    def __call__(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits after each token, and the state after the last."""
        return self._model.decode(tokens, state)

    def select(self, state: Any, rows: Tensor) -> Any:
        """The state of the given rows."""
        return self._model.select(state, rows)
