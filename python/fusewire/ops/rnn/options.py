"""What a call of a recurrent network asks for beside its operands."""

from __future__ import annotations

from typing import Any, NamedTuple

from fusewire.ops.door import check_seed

GATES = {
    "tanh": 1,
    "relu": 1,
    "lstm": 4,
    "gru": 3,
    "min_gru": 2,
    "min_gru_positive": 2,
    "min_lstm": 3,
    "min_lstm_positive": 3,
}
"""The cells, and the runs of hidden_size rows in their weights."""

_PLAIN = frozenset({"tanh", "relu", "lstm", "gru"})
"""Those of `torch.nn`, whose gates see the last state."""


class Options(NamedTuple):
    """What a call asks for beside its operands."""

    kind: str
    bidirectional: bool = False
    batch_first: bool = False
    lengths: Any = None
    dropout: float = 0.0
    training: bool = False
    locked: bool = False
    recurrent_dropout: float = 0.0
    zoneout: tuple[float, float] = (0.0, 0.0)
    reset_after: bool = True
    seed: int | None = None

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def is_minimal(self) -> bool:
        """Whether the cell's gates do not see the last state."""
        return self.kind.startswith("min_")

    @property
    def is_plain(self) -> bool:
        """Whether the cells are those of `torch.nn`, with nothing done to their states."""
        return (
            self.kind in _PLAIN
            and self.reset_after
            and self.zoneout == (0.0, 0.0)
            and not (self.training and self.recurrent_dropout)
        )


class Variant(NamedTuple):
    """A layer's cell and what happens to its states, masks drawn."""

    kind: str
    reset_after: bool = True
    recurrent: Any = None
    """What the hidden state is multiplied by before its product, ``(batch, size)``."""
    zoneout_hidden: Any = None
    """The share of the last hidden state that stays, ``(total, size)`` or a number."""
    zoneout_cell: Any = None
    """The same of the cell state."""

    @property
    def gates(self) -> int:
        """The runs of hidden_size rows in the weights."""
        return GATES[self.kind]

    @property
    def is_plain(self) -> bool:
        """Whether it is a cell of `torch.nn`."""
        states = (self.recurrent, self.zoneout_hidden, self.zoneout_cell)
        return self.reset_after and all(state is None for state in states)

    def norm_groups(self, hidden_size: int) -> list[slice]:
        """The gates that layer normalisation takes together: of a GRU, the candidate apart."""
        if self.kind == "gru":
            return [slice(0, 2 * hidden_size), slice(2 * hidden_size, 3 * hidden_size)]
        return [slice(0, self.gates * hidden_size)]

    def rows_of(self, name: str, place: slice) -> Any:
        """The rows of one of the masks; None or a number as it is."""
        mask = getattr(self, name)
        return mask if mask is None or isinstance(mask, float) else mask[place]


EPSILON = 1e-5
"""Added to the variance that layer normalisation divides by, as in `torch.nn.LayerNorm`."""


def named_options(kind: str, given: dict[str, Any]) -> Options:
    """Options by the names that a cell's function knows."""
    lacks = {"kind"} if kind == "gru" else {"kind", "reset_after"}
    if kind not in _PLAIN:
        lacks |= {"recurrent_dropout", "zoneout"}
    for name in given:
        if name in lacks or name not in Options._fields:
            raise TypeError(f"{shown(kind)} has no option {name!r}")
    if "zoneout" in given:
        given = {**given, "zoneout": zoneout_pair(given["zoneout"])}
    return Options(kind, **given)


def zoneout_pair(zoneout: float | tuple[float, float]) -> tuple[float, float]:
    """The probabilities of the hidden and the cell state."""
    if not isinstance(zoneout, (tuple, list)):
        return zoneout, zoneout
    if len(zoneout) != 2:
        raise ValueError(f"zoneout must be one probability or two, but is {zoneout}")
    hidden, cell = zoneout
    return hidden, cell


def check_options(options: Options) -> None:
    """Checks what a call asks for beside its operands."""
    for name, rate in [
        ("dropout", options.dropout),
        ("recurrent_dropout", options.recurrent_dropout),
        ("zoneout", options.zoneout[0]),
        ("zoneout", options.zoneout[1]),
    ]:
        try:
            fits = 0 <= rate <= 1
        except TypeError:
            raise TypeError(f"{name} must be a number, but is {rate!r}") from None
        if not fits:
            raise ValueError(f"{name} must be from 0 to 1, but is {rate}")
    if options.kind != "lstm" and options.zoneout[0] != options.zoneout[1]:
        raise ValueError(
            f"zoneout must be a single probability for {shown(options.kind)}, which has no cell "
            f"state, but is {options.zoneout}"
        )
    if options.seed is not None:
        check_seed(options.seed)


def shown(kind: str) -> str:
    """What the function of a cell is called."""
    return "rnn" if kind in ("tanh", "relu") else kind.removesuffix("_positive")
