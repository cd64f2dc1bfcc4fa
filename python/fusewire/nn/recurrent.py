"""What all recurrent layers are as modules, with the arguments and the state_dict of `torch.nn`."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch.nn.utils.rnn import PackedSequence

from fusewire.nn import traced
from fusewire.nn.symbolic import is_symbolic, recorded, refuse_script
from fusewire.ops import dispatcher
from fusewire.ops.rnn import autograd
from fusewire.ops.rnn.options import GATES, Options, check_options, zoneout_pair
from fusewire.ops.rnn.weights import LayerWeights, is_torchs

_KINDS = {
    "RNN_TANH": "tanh",
    "RNN_RELU": "relu",
    "LSTM": "lstm",
    "GRU": "gru",
    "MIN_GRU": "min_gru",
    "MIN_LSTM": "min_lstm",
}


class Recurrent(torch.nn.Module):
    """What :class:`RNN`, :class:`GRU`, :class:`LSTM` and others have in common.

    Parameters and attributes are those of `torch.nn.RNNBase`, so state_dicts fit both. It is no
    subclass of it because `torch.compile` refuses all of those.

    Args:
        input_size: Features of the input.
        hidden_size: Units of a layer.
        num_layers: Layers, each fed with the output of the one below.
        bias: Whether there are biases.
        batch_first: Whether input and output are ``(batch, seq_len, ...)``.
        dropout: The probability with which a number between two layers is set to 0 in training.
        bidirectional: Whether each layer also runs from the end to the beginning.
        proj_size: Units that the output of an LSTM is projected to; 0 for no projection.
        device: Where the parameters are.
        dtype: The parameters' type.
        layer_norm: Whether gates' sums, and an LSTM's cell state, are normalised (Ba et al. 2016).
        locked: Whether `dropout` draws once per sequence for all of its steps.
        recurrent_dropout: The probability with which a unit of the hidden state is 0 in the gates'
            products in training, drawn once per sequence.
        zoneout: The probability with which a unit of a state stays as it was; two numbers for an
            LSTM's hidden and cell state.

    Raises:
        TypeError: If a size is not whole, or `bias` or `batch_first` no bool.
        ValueError: If a size or a probability is out of range.
    """

    _torchs: ClassVar[Any] = None
    """The class of `torch.nn` that computes the same."""

    _extras: ClassVar[dict[str, Any]] = {}
    """A cell's own options that `repr` shows, with their defaults."""

    # What `torch.nn`'s layers lack, for those that get this class from `fusewire.fuse`; asking a
    # module for an attribute that it does not have takes as long as a tenth of a step.
    layer_norm: bool = False
    peepholes: bool = False
    locked: bool = False
    recurrent_dropout: float = 0.0
    zoneout: tuple[float, float] = (0.0, 0.0)

    __prepare_scriptable__ = refuse_script

    mode: str
    """``"RNN_TANH"``, ``"RNN_RELU"``, ``"LSTM"``, ``"GRU"``, ``"MIN_GRU"`` or ``"MIN_LSTM"``."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        layer_norm: bool = False,
        locked: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
    ) -> None:
        super().__init__()
        if proj_size and self.mode != "LSTM":
            raise ValueError("proj_size is for LSTM only")
        # Refuses, in its own words, what PyTorch refuses.
        torch.nn.RNNBase(
            self.mode if self._torchs else "GRU",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device="meta",
        )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self.layer_norm = layer_norm
        self.locked = locked
        self.recurrent_dropout = float(recurrent_dropout)
        self.zoneout = zoneout_pair(zoneout)
        check_options(self._options())
        self._all_weights: list[list[str]] = []
        for layer in range(num_layers):
            for suffix in ["", "_reverse"] if bidirectional else [""]:
                shapes = self._shapes(first=layer == 0)
                shapes = {name: shapes[name] for name in LayerWeights._fields if name in shapes}
                names = [f"{name}_l{layer}{suffix}" for name in shapes]
                for name, shape in zip(names, shapes.values(), strict=True):
                    empty = torch.empty(shape, device=device, dtype=dtype)
                    self.register_parameter(name, torch.nn.Parameter(empty))
                self._all_weights.append(names)
        self.reset_parameters()

    def _shapes(self, first: bool) -> dict[str, tuple[int, ...]]:
        """The parameters of a layer in one direction, in the order of `torch.nn`."""
        rows = GATES[_KINDS[self.mode]] * self.hidden_size
        recurrent = self.proj_size or self.hidden_size
        below = self.input_size if first else recurrent * (2 if self.bidirectional else 1)
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, below)}
        if self._sees_state:
            shapes["weight_hh"] = (rows, recurrent)
        if self.bias:
            shapes["bias_ih"] = (rows,)
        if self.bias and self._sees_state:
            shapes["bias_hh"] = (rows,)
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        if self.layer_norm:
            shapes |= {"norm_ih": (rows,), "norm_hh": (rows,)}
        return shapes

    @property
    def _sees_state(self) -> bool:
        """Whether the gates see the last state, with a weight and a bias of its own."""
        return not self.mode.startswith("MIN_")

    @property
    def _is_plain(self) -> bool:
        """Whether the parameters are those of `torch.nn`, which need no names."""
        return self._sees_state and not (self.layer_norm or self.peepholes)

    def _options(self) -> Options:
        # By position, in half of the time: a step of a small layer takes hardly longer.
        return Options(
            _KINDS[self.mode],
            self.bidirectional,
            self.batch_first,
            None,
            self.dropout,
            self.training,
            self.locked,
            self.recurrent_dropout,
            self.zoneout,
        )

    def reset_parameters(self) -> None:
        """Draws all parameters uniformly from plus and minus ``1 / sqrt(hidden_size)``.

        The gains of layer normalisation become 1.
        """
        bound = 1 / math.sqrt(self.hidden_size)
        for name, parameter in self.named_parameters():
            if name.startswith("norm_"):
                torch.nn.init.ones_(parameter)
            else:
                torch.nn.init.uniform_(parameter, -bound, bound)

    @property
    def all_weights(self) -> list[list[torch.Tensor]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[torch.Tensor]:
        return [getattr(self, name) for name in self._flat_weights_names]

    @_flat_weights.setter
    def _flat_weights(self, weights: list[torch.Tensor]) -> None:
        # What drops weights tells `torch.nn`'s layers of those that it has put in place already.
        for name, weight in zip(self._flat_weights_names, weights, strict=True):
            if weight is not getattr(self, name):
                setattr(self, name, weight)

    def flatten_parameters(self) -> None:
        """Puts the parameters side by side on a GPU, where cuDNN wants them so."""
        if self._torchs is not None and self._is_plain:
            torch.nn.RNNBase.flatten_parameters(self)  # type: ignore[arg-type]

    def _apply(self, fn: Any, recurse: bool = True) -> Recurrent:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.flatten_parameters()
        return self

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses."""
        defaults = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
            "layer_norm": False,
            "locked": False,
            "recurrent_dropout": 0.0,
            "zoneout": (0.0, 0.0),
            **self._extras,
        }
        shown = [str(self.input_size), str(self.hidden_size)]
        shown += [
            f"{name}={getattr(self, name)}"
            for name, default in defaults.items()
            if getattr(self, name) != default
        ]
        return ", ".join(shown)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """Runs the layers, as in `torch.nn`.

        Args:
            input: ``(seq_len, batch, input_size)``, or a `PackedSequence`, or a single sequence
                ``(seq_len, input_size)``.
            hx: The initial hidden state, ``(layers * directions, batch, hidden_size)``; zeros if
                None.

        Returns:
            The output, laid out like `input`, and the final hidden state.
        """
        if is_symbolic(input):
            return recorded(self, input, hx)  # type: ignore[no-any-return]
        output, (hidden,) = self._run(input, None if hx is None else [hx])
        return output, hidden

    def _run(self, input: Any, states: list[torch.Tensor] | None) -> tuple[Any, list[torch.Tensor]]:
        """Runs all layers on a padded or a packed batch."""
        try:
            return self._compute(input, states)
        except (TypeError, ValueError):
            self._refuse(input, states)
            raise

    def _refuse(self, input: Any, states: list[torch.Tensor] | None) -> None:
        """Raises what PyTorch's class does for an input that it does not take either."""
        operands = [input, *(states or [])]
        if self._torchs is None or not all(isinstance(one, torch.Tensor) for one in operands):
            return  # States beside packed sequences go unchecked there.
        twin = self._torchs(
            self.input_size,
            self.hidden_size,
            self.num_layers,
            bias=self.bias,
            batch_first=self.batch_first,
            bidirectional=self.bidirectional,
            **({"proj_size": self.proj_size} if self.proj_size else {}),
            device="meta",
            dtype=self.weight_ih_l0.dtype,
        )
        hx = None if states is None else tuple(state.to("meta") for state in states)
        twin(input.to("meta"), hx[0] if hx is not None and len(hx) == 1 else hx)

    def _traced(
        self, options: Options, input: Any, states: list[torch.Tensor] | None
    ) -> tuple[Any, list[torch.Tensor]]:
        """What `torch.jit.trace` records."""
        weights = self.all_weights
        if not self._is_plain or not is_torchs(options, [LayerWeights(*weights[0][:2])]):
            raise RuntimeError(
                f"torch.jit.trace cannot record {type(self).__name__} with what torch.nn does not "
                "have; torch.export and torch.compile can"
            )
        return traced.run(options, input, states, weights)

    def _compute(
        self, input: Any, states: list[torch.Tensor] | None
    ) -> tuple[Any, list[torch.Tensor]]:
        options = self._options()
        if dispatcher.is_traced():
            return self._traced(options, input, states)
        try:  # Quicker than attributes, which parametrizations put in parameters' places.
            find = self._parameters.__getitem__
            weights: list[Any] = [list(map(find, names)) for names in self._all_weights]
        except KeyError:
            weights = self.all_weights
        if not self._is_plain:
            weights = [
                LayerWeights(**{name.partition("_l")[0]: weight for name, weight in entry})
                for entry in map(zip, self._all_weights, weights)
            ]
        if not isinstance(input, PackedSequence):
            return autograd.run(options, input, states, weights)
        rows, batch_sizes, sorted_indices, unsorted_indices = input
        if states is not None and sorted_indices is not None:
            states = [state.index_select(1, sorted_indices) for state in states]
        output, finals = autograd.run_packed(options, rows, batch_sizes.tolist(), states, weights)
        if unsorted_indices is not None:
            finals = [final.index_select(1, unsorted_indices) for final in finals]
        return PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices), finals
