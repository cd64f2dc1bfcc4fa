"""Autoregressive sampling: one token at a time, each drawn from the model's own prediction."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class LanguageModel(Protocol):
    """What sampling asks of a language model."""

    training: bool

    @property
    def window(self) -> int | None:
        """Most tokens that the model can look at; ``None`` when nothing bounds its past."""

    def initial_state(self, batch: int) -> Any:
        """The state before the first token."""

    def __call__(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Logits after each token, and the state after the last."""

    def train(self, mode: bool = True) -> Any:
        """Switches dropout on or off."""


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompt: Tensor,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    cached: bool = True,
) -> Tensor:
    r"""Continues a prompt by sampling from the model.

    .. math:: x_{t+1} \sim \mathrm{softmax}(z_t / \mathrm{temperature}), \quad z_t = f(x_{\le t})

    A model with a bounded window reads the newest tokens only: when its window is full, its start
    jumps forward by half a window, so that the cache is refilled once every window / 2 tokens.

    Args:
        model: a Transformer or a recurrent model.
        prompt: token ids, (batch, prompt_len) with prompt_len at least 1.
        length: tokens to add.
        temperature: below 1 makes likely tokens likelier; 0 takes the likeliest.
        top_k: draw from the k likeliest tokens only.
        seed: the same seed gives the same tokens, on every device.
        cached: keep keys and values, or the recurrent state, between tokens. Without it
            everything visible is read again for each token: the same result, slower.

    Returns:
        Prompt and continuation, (batch, prompt_len + length).

    Raises:
        ValueError: for an empty prompt, a negative length or temperature, or a top_k below 1.

    Example:
        >>> import torch
        >>> from fusewire.models.language import Recurrent, RecurrentConfig, generate
        >>> model = Recurrent(RecurrentConfig(embed_dim=8, hidden_size=8), vocab_size=10)
        >>> generate(model, torch.tensor([[1, 2]]), length=3, seed=7).shape
        torch.Size([1, 5])
    """
    batch, prompt_len = prompt.shape
    if prompt_len < 1:
        raise ValueError("the prompt must hold at least one token, got none")
    if length < 0:
        raise ValueError(f"length must not be negative, got {length}")
    if temperature < 0.0:
        raise ValueError(f"temperature must not be negative, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")

    # Drawn on the CPU, whose generator gives the same numbers whatever the model runs on.
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.cat([prompt, prompt.new_empty(batch, length)], dim=1)
    was_training = model.training
    model.train(False)
    try:
        state, start, read = None, 0, 0  # the state holds tokens[:, start:read]
        for end in range(prompt_len, prompt_len + length):
            visible = _window_start(end, model.window)
            if read == 0 or visible != start or not cached:
                start = read = visible
                state = model.initial_state(batch) if cached else None
            logits, state = model(tokens[:, read:end], state)
            read = end
            tokens[:, end] = _draw(logits[:, -1], temperature, top_k, generator)
    finally:
        model.train(was_training)
    return tokens


def _window_start(length: int, window: int | None) -> int:
    """First visible token of ``length``: a multiple of half a window, so that it moves rarely."""
    if window is None or length <= window:
        return 0
    stride = max(1, window // 2)
    return -(-(length - window) // stride) * stride


def _draw(
    logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator
) -> Tensor:
    """Draws one token per row of logits (batch, vocab_size)."""
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    logits = logits.float().cpu() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        smallest_kept = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < smallest_kept, float("-inf"))
    drawn = torch.multinomial(logits.softmax(dim=-1), num_samples=1, generator=generator)
    return drawn.squeeze(1)
