"""Autoregressive generation: one token at a time, each from the model's own prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fusewire.models.language.sampling import Sampling


class LanguageModel(Protocol):
    """What generation asks of a language model."""

    @property
    def training(self) -> bool:
        """Whether dropout is on."""

    @property
    def window(self) -> int | None:
        """Most tokens that the model can look at; ``None`` when nothing bounds its past."""

    def begin(self, tokens: Tensor, padding: Tensor | None) -> tuple[Tensor, Any]:
        """Logits of what follows each prompt, (batch, vocab_size), and the state."""

    def __call__(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits after each token, (batch, query_len, vocab_size), and the state."""

    def select(self, state: Any, rows: Tensor) -> Any:
        """The state of the given rows, in their order."""

    def train(self, mode: bool = True) -> Any:
        """Switches dropout on or off."""


def generate(
    model: LanguageModel,
    prompt: Tensor | Sequence[Tensor],
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    cached: bool = True,
) -> Tensor:
    r"""Continues prompts by sampling from the model.

    .. math:: x_{t+1} \sim \mathrm{softmax}(z_t / \mathrm{temperature}), \quad z_t = f(x_{\le t})

    A model with a bounded window reads the newest tokens only: when its window is full, its start
    jumps forward by half a window, so that the cache is refilled once every window / 2 tokens.

    Args:
        model: a Transformer or a recurrent model, or an encoder-decoder's ``conditioned``.
        prompt: token ids, (batch, prompt_len) with prompt_len at least 1, or several prompts
            (prompt_len) of different lengths.
        length: tokens to add.
        temperature: below 1 makes likely tokens likelier; 0 takes the likeliest.
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the fewest likeliest tokens whose probabilities sum to p.
        min_p: draw from tokens at least this fraction as probable as the likeliest.
        repetition_penalty: above 1 makes tokens that came already less likely.
        seed: the same seed gives the same tokens, on every device.
        cached: keep keys and values, or the recurrent state, between tokens. Without it
            everything visible is read again for each token: the same result, slower.

    Returns:
        Prompt and continuation, (batch, prompt_len + length); shorter prompts are padded with 0
        in front.

    Raises:
        ValueError: for an empty prompt or a negative length.
        fusewire.errors.InputError: for a setting that is out of range.

    Example:
        >>> import torch
        >>> from fusewire.models.language import Recurrent, RecurrentConfig, generate
        >>> model = Recurrent(RecurrentConfig(embed_dim=8, hidden_size=8), vocab_size=10)
        >>> generate(model, torch.tensor([[1, 2]]), length=3, seed=7).shape
        torch.Size([1, 5])
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    drawn = list(stream(model, prompt, length, sampling, seed=seed, cached=cached))
    tokens, _ = _pad(prompt)
    return torch.cat([tokens, *(column[:, None] for column in drawn)], dim=1)


@torch.no_grad()  # as a decorator, which lets go of the mode at each yield
def stream(
    model: LanguageModel,
    prompt: Tensor | Sequence[Tensor],
    length: int,
    sampling: Sampling,
    *,
    seed: int = 0,
    cached: bool = True,
    finished: Callable[[Tensor], bool] | None = None,
) -> Iterator[Tensor]:
    """Yields the tokens of `generate` as they are drawn, (batch) each.

    Args:
        model: as for `generate`.
        prompt: as for `generate`.
        length: most tokens to add.
        sampling: how each is drawn.
        seed: as for `generate`.
        cached: as for `generate`.
        finished: is shown what was drawn so far, (batch, drawn), and says whether to stop.

    Yields:
        Token ids, (batch).
    """
    tokens, padding = _pad(prompt)
    if length < 0:
        raise ValueError(f"length must not be negative, got {length}")
    batch, prompt_len = tokens.shape
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.cat([tokens, tokens.new_empty(batch, length)], dim=1)
    seen: Tensor | None = None
    with evaluating(model):
        state, start, read = None, 0, 0  # the state holds tokens[:, start:read]
        for end in range(prompt_len, prompt_len + length):
            visible = window_start(end, model.window)
            if read == 0 or visible != start or not cached:
                start = visible
                logits, state = model.begin(tokens[:, start:end], _padding_from(start, padding))
            else:
                following, state = model(tokens[:, read:end], state)
                logits = following[:, -1]
            read = end
            if seen is None:
                seen = _held(tokens[:, :prompt_len], padding, logits.shape[-1])
            drawn = sampling.draw(logits, seen, generator)
            seen[torch.arange(batch), drawn] = True
            tokens[:, end] = drawn
            yield drawn
            if finished is not None and finished(tokens[:, prompt_len : end + 1]):
                return


@contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """Switches dropout off for the time of a block."""
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)


def window_start(length: int, window: int | None) -> int:
    """First visible token of ``length``: a multiple of half a window, so that it moves rarely."""
    if window is None or length <= window:
        return 0
    stride = max(1, window // 2)
    return -(-(length - window) // stride) * stride


def _pad(prompt: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Prompts as (batch, prompt_len), and how much of each row is padding in front."""
    if isinstance(prompt, Tensor):
        if prompt.shape[1] < 1:
            raise ValueError("the prompt must hold at least one token, got none")
        return prompt, None
    if not prompt or any(len(row) < 1 for row in prompt):
        raise ValueError("every prompt must hold at least one token, got none")
    tokens = pad_sequence(list(prompt), batch_first=True, padding_side="left")
    padding = torch.tensor([tokens.shape[1] - len(row) for row in prompt], device=tokens.device)
    return tokens, padding if bool(padding.any()) else None


def _padding_from(start: int, padding: Tensor | None) -> Tensor | None:
    """What is left of the padding once the first ``start`` tokens are out of sight."""
    if padding is None or int(padding.max()) <= start:
        return None
    return (padding - start).clamp(min=0)


def _held(tokens: Tensor, padding: Tensor | None, vocab_size: int) -> Tensor:
    """Which tokens each prompt holds, bool (batch, vocab_size)."""
    held = torch.zeros(len(tokens), vocab_size, dtype=torch.bool, device=tokens.device)
    exists = torch.ones_like(tokens, dtype=torch.bool)
    if padding is not None:
        exists = torch.arange(tokens.shape[1], device=tokens.device) >= padding[:, None]
    rows = torch.arange(len(tokens), device=tokens.device)[:, None].expand_as(tokens)
    held[rows[exists], tokens[exists]] = True
    return held
