"""Recurrent layers whose gates do not see the last state, as modules."""

from __future__ import annotations

from typing import Any, ClassVar

from fusewire.nn.recurrent import Recurrent
from fusewire.ops.rnn.options import Options


class Minimal(Recurrent):
    """What :class:`MinGRU` and :class:`MinLSTM` have in common.

    Args:
        *arguments: Those of :class:`Recurrent`.
        positive: Whether the candidate is never negative; see :func:`fusewire.min_gru`.
        **options: Those of :class:`Recurrent`.
    """

    def __init__(self, *arguments: Any, positive: bool = False, **options: Any) -> None:
        self.positive = positive
        super().__init__(*arguments, **options)
        if self.layer_norm or self.recurrent_dropout or any(self.zoneout):
            raise ValueError("layer_norm, recurrent_dropout and zoneout are for RNN, GRU and LSTM")

    _extras: ClassVar[dict[str, Any]] = {"positive": False}

    def _options(self) -> Options:
        options = super()._options()
        return options._replace(kind=f"{options.kind}_positive") if self.positive else options


class MinGRU(Minimal):
    """Layers of minGRU (Feng et al. 2024), computed by :func:`fusewire.min_gru`.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> output, hidden = fw.nn.MinGRU(3, 5, num_layers=2)(torch.ones(7, 2, 3))
        >>> output.shape, hidden.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 2, 5]))
    """

    mode = "MIN_GRU"


class MinLSTM(Minimal):
    """Layers of minLSTM (Feng et al. 2024), computed by :func:`fusewire.min_lstm`.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> output, hidden = fw.nn.MinLSTM(3, 5, bidirectional=True)(torch.ones(7, 2, 3))
        >>> output.shape, hidden.shape
        (torch.Size([7, 2, 10]), torch.Size([2, 2, 5]))
    """

    mode = "MIN_LSTM"
