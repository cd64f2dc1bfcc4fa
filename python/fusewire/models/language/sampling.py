"""From logits to a token: temperature, truncations of the distribution, and the draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fusewire.config import require_declared
from fusewire.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. Each truncation applies to what the ones before it left.

    Attributes:
        temperature: below 1 makes likely tokens likelier; 0 takes the likeliest.
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the fewest likeliest tokens whose probabilities sum to p (nucleus,
            Holtzman et al. 2020).
        min_p: draw from tokens at least this fraction as probable as the likeliest.
        repetition_penalty: above 1 makes tokens that came already less likely (CTRL, Keskar et
            al. 2019: positive logits are divided by it, negative ones multiplied).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        require_declared(self)
        if not 0.0 <= self.temperature < math.inf:
            raise InputError(f"temperature must not be negative, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise InputError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.min_p is not None and not 0.0 <= self.min_p <= 1.0:
            raise InputError(f"min_p must be from 0 to 1, got {self.min_p}")
        if not 0.0 < self.repetition_penalty < math.inf:
            raise InputError(
                f"repetition_penalty must be more than 0, got {self.repetition_penalty}"
            )

    def draw(self, logits: Tensor, seen: Tensor, generator: torch.Generator) -> Tensor:
        """Draws one token a row.

        Args:
            logits: of every token, (batch, vocab_size).
            seen: whether a row's text holds a token already, bool (batch, vocab_size).
            generator: of the CPU, whose numbers are the same whatever the model runs on.

        Returns:
            Token ids, (batch).
        """
        logits = self.penalised(logits, seen)
        if self.temperature == 0.0:
            return logits.argmax(dim=-1)
        # From the largest down, so that no temperature is too low for float32.
        below = logits.float().cpu()
        below = below - below.amax(dim=-1, keepdim=True)
        kept = self.truncated(below / max(self.temperature, 1e-30))
        drawn = torch.multinomial(kept.softmax(dim=-1), num_samples=1, generator=generator)
        return drawn.squeeze(1).to(logits.device)

    def penalised(self, logits: Tensor, seen: Tensor) -> Tensor:
        """Logits after the repetition penalty."""
        if self.repetition_penalty == 1.0:
            return logits
        penalty = self.repetition_penalty
        lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
        return torch.where(seen, lowered, logits)

    def truncated(self, logits: Tensor) -> Tensor:
        """Logits with those of tokens that must not be drawn at −∞."""
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            smallest_kept = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < smallest_kept, -torch.inf)
        if self.top_p is not None and self.top_p < 1.0:
            ordered, order = logits.sort(dim=-1, descending=True)
            probabilities = ordered.softmax(dim=-1)
            # A token stays while those likelier than it do not suffice; so the likeliest stays.
            enough = probabilities.cumsum(dim=-1) - probabilities >= self.top_p
            logits = logits.masked_fill(enough.scatter(1, order, enough), -torch.inf)
        if self.min_p is not None:
            least = logits.amax(dim=-1, keepdim=True) + math.log(max(self.min_p, 1e-45))
            logits = logits.masked_fill(logits < least, -torch.inf)
        return logits
