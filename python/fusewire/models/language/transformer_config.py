"""Sizes and styles of a Transformer, whichever way round it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fusewire.config import require_declared
from fusewire.errors import InputError


@dataclass(frozen=True)
class RotaryScaling:
    """RoPE for texts longer than those learnt from, which turns slow angles slower still.

    Attributes:
        factor: what they are divided by.
        learnt_context: tokens of a text learnt from; None divides every angle alike (Chen et al.
            2023), a number only those that turn seldom in so many tokens (Llama 3.1).
        slow_turns: angles that turn less often are divided by the whole factor.
        fast_turns: angles that turn more often stay; between the two lies a straight line.
        magnitude: what cosines and sines are multiplied by; scores grow by its square.
    """

    factor: float
    learnt_context: int | None = None
    slow_turns: float = 1.0
    fast_turns: float = 4.0
    magnitude: float = 1.0

    def __post_init__(self) -> None:
        require_declared(self)
        if not self.factor > 0.0:
            raise InputError(f"the factor of rotary_scaling must be above 0, got {self.factor}")
        if not 0.0 <= self.slow_turns < self.fast_turns:
            raise InputError(
                "slow_turns of rotary_scaling must be less than fast_turns, got "
                f"{self.slow_turns} and {self.fast_turns}"
            )


@dataclass(frozen=True)
class YarnScaling(RotaryScaling):
    """The same with a line that is straight from angle to angle, not in turns (Peng et al. 2023).

    Attributes:
        whole_angles: whether it begins and ends at whole numbers of angles, outside the others.
    """

    fast_turns: float = 32.0
    whole_angles: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.slow_turns > 0.0 or self.learnt_context is None:
            raise InputError(
                "YaRN needs learnt_context and slow_turns above 0, got "
                f"{self.learnt_context} and {self.slow_turns}"
            )


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and styles of a stack of Transformer blocks.

    Attributes:
        context: most tokens the model sees at once; the number of learned positions.
        layers: blocks of attention and feed-forward.
        heads: query heads.
        embed_dim: width of the residual stream.
        kv_heads: key and value heads, a divisor of ``heads``; ``None`` means as many as heads.
        head_dim: width of a head; ``None`` splits ``embed_dim`` evenly among the heads.
        feed_forward_dim: hidden width of the feed-forward; ``None`` means four times ``embed_dim``.
        dropout: probability of dropping a unit of the embedding and of each branch's output.
        positions: how a token knows its place: a learned vector per place, fixed sinusoids
            (Vaswani et al. 2017), or queries and keys turned by angles (RoPE, Su et al. 2021).
        norm: ``"layer"`` (LayerNorm) or ``"rms"`` (RMSNorm).
        activation: of the feed-forward, ``"gelu"`` or ``"swiglu"`` (Shazeer 2020).
        attention_window: a token sees itself and so many tokens less one before it (and in an
            encoder behind it); ``None`` means all.
        bias: whether linear layers have one.
        tied: whether the output layer is the embedding itself.
        norm_epsilon: added to the variance in norms.
        rotary_base: the slowest angle of RoPE turns once in about 2 π ``rotary_base`` tokens.
        rotary_scaling: which of these angles are slower; ``None`` means none.
    """

    context: int = 128
    layers: int = 4
    heads: int = 4
    embed_dim: int = 128
    kv_heads: int | None = None
    head_dim: int | None = None
    feed_forward_dim: int | None = None
    dropout: float = 0.0
    positions: Literal["learned", "sinusoidal", "rotary"] = "learned"
    norm: Literal["layer", "rms"] = "layer"
    activation: Literal["gelu", "swiglu"] = "gelu"
    attention_window: int | None = None
    bias: bool = True
    tied: bool = True
    norm_epsilon: float = 1e-5
    rotary_base: float = 10_000.0
    rotary_scaling: RotaryScaling | YarnScaling | None = None

    def __post_init__(self) -> None:
        require_declared(self)
        sizes = ("context", "layers", "heads", "embed_dim", "kv_heads", "head_dim")
        for name in (*sizes, "feed_forward_dim", "attention_window"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise InputError(f"{name} must be at least 1, got {size}")
        if self.head_dim is None and self.embed_dim % self.heads:
            raise InputError(
                f"embed_dim must be a multiple of heads, got {self.embed_dim} and {self.heads}"
            )
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise InputError(
                f"kv_heads must be a divisor of heads, got {self.kv_heads} and {self.heads}"
            )
        if self.positions == "rotary" and self.width_of_head % 2:
            raise InputError(f"rotary positions need an even head_dim, got {self.width_of_head}")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def width_of_head(self) -> int:
        """Numbers in a query or key of one head."""
        return self.head_dim or self.embed_dim // self.heads

    @property
    def width_of_feed_forward(self) -> int:
        """Hidden units of the feed-forward."""
        return self.feed_forward_dim or 4 * self.embed_dim
