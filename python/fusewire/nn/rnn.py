"""`torch.nn`'s recurrent layers, computed by our kernels, and what those have beyond."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from fusewire.nn.recurrent import Recurrent
from fusewire.nn.symbolic import is_symbolic, recorded
from fusewire.ops.rnn.options import Options


class RNN(Recurrent):
    """`torch.nn.RNN`, computed by the kernels behind :func:`fusewire.rnn`.

    Arguments are those of :class:`Recurrent` with one more in the fourth place, `nonlinearity`:
    ``"tanh"`` or ``"relu"``.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> output, hidden = fw.nn.RNN(3, 5, nonlinearity="relu")(torch.ones(7, 2, 3))
        >>> output.shape, hidden.shape
        (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))
    """

    _torchs = torch.nn.RNN

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        *arguments: Any,
        **options: Any,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity must be 'tanh' or 'relu', but is {nonlinearity!r}")
        self.mode = f"RNN_{nonlinearity.upper()}"
        super().__init__(input_size, hidden_size, num_layers, *arguments, **options)
        self.nonlinearity = nonlinearity


class GRU(Recurrent):
    """`torch.nn.GRU`, computed by the kernels behind :func:`fusewire.gru`.

    Args:
        *arguments: Those of :class:`Recurrent`.
        reset_after: Whether the reset gate scales the product, as in `torch.nn`, and not the state
            before it; see :func:`fusewire.gru`.
        **options: Those of :class:`Recurrent`.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> output, hidden = fw.nn.GRU(3, 5, bidirectional=True)(torch.ones(7, 2, 3))
        >>> output.shape, hidden.shape
        (torch.Size([7, 2, 10]), torch.Size([2, 2, 5]))
    """

    mode = "GRU"
    _torchs = torch.nn.GRU
    _extras: ClassVar[dict[str, Any]] = {"reset_after": True}
    reset_after: bool = True

    def __init__(self, *arguments: Any, reset_after: bool = True, **options: Any) -> None:
        self.reset_after = reset_after
        super().__init__(*arguments, **options)

    def _options(self) -> Options:
        options = super()._options()
        return options if self.reset_after else options._replace(reset_after=False)


class LSTM(Recurrent):
    """`torch.nn.LSTM`, computed by the kernels behind :func:`fusewire.lstm`.

    Args:
        *arguments: Those of :class:`Recurrent`.
        peepholes: Whether gates see the cell state (Gers and Schmidhuber 2000).
        **options: Those of :class:`Recurrent`.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> output, (hidden, cell) = fw.nn.LSTM(3, 5, num_layers=2)(torch.ones(7, 2, 3))
        >>> output.shape, cell.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 2, 5]))
    """

    mode = "LSTM"
    _torchs = torch.nn.LSTM
    _extras: ClassVar[dict[str, Any]] = {"peepholes": False}

    def __init__(self, *arguments: Any, peepholes: bool = False, **options: Any) -> None:
        self.peepholes = peepholes
        super().__init__(*arguments, **options)

    def _shapes(self, first: bool) -> dict[str, tuple[int, ...]]:
        shapes, size = super()._shapes(first), (self.hidden_size,)
        if self.peepholes:
            shapes["peephole"] = (3, self.hidden_size)
        if self.layer_norm:
            shapes["norm_cell"] = size
        if self.layer_norm and self.bias:
            shapes["bias_cell"] = size
        return shapes

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, tuple[torch.Tensor, torch.Tensor]]:
        """Runs the layers; see `torch.nn.LSTM.forward`.

        Args:
            input: As for :meth:`Recurrent.forward`.
            hx: The initial hidden state, ``(layers * directions, batch, proj_size or
                hidden_size)``, and cell state, ``(layers * directions, batch, hidden_size)``.

        Returns:
            The output, laid out like `input`, and the final hidden and cell state.
        """
        if is_symbolic(input):
            return recorded(self, input, hx)  # type: ignore[no-any-return]
        output, (hidden, cell) = self._run(input, None if hx is None else list(hx))
        return output, (hidden, cell)
