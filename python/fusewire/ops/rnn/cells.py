"""Recurrent networks whose gates see the last state: one door for arrays and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fusewire.ops.door import is_tensor
from fusewire.ops.rnn.options import Options, check_options, zoneout_pair

Nonlinearity = Literal["tanh", "relu"]


def lstm(
    input: Any,
    state: tuple[Any, Any] | None,
    weights: Sequence[Sequence[Any]],
    *,
    bidirectional: bool = False,
    batch_first: bool = False,
    lengths: Any = None,
    dropout: float = 0.0,
    training: bool = False,
    locked: bool = False,
    recurrent_dropout: float = 0.0,
    zoneout: float | tuple[float, float] = 0.0,
    seed: int | None = None,
) -> tuple[Any, tuple[Any, Any]]:
    """Runs layers of long short-term memory over whole sequences.

    ``i, f, g, o = W_ih x + b_ih + W_hh h + b_hh``, ``c = sigmoid(f) c + sigmoid(i) tanh(g)``,
    ``h = sigmoid(o) tanh(c)``, as in `torch.nn.LSTM`. Half precision is computed in float32; the
    weights of bfloat16 tensors without gradients are read as they are. Tensors on other devices
    than the CPU run PyTorch's own layers.

    Args:
        input: ``(seq_len, batch, input_size)``, or ``(seq_len, input_size)`` for a single
            sequence; an array or a tensor, float32, float64, bfloat16 (in NumPy that of
            `ml_dtypes`) or float16.
        state: The initial hidden and cell state, each ``(layers * directions, batch,
            hidden_size)``, without the batch for a single sequence; zeros if None.
        weights: For each layer and direction, a layer's directions next to each other:
            ``(weight_ih, weight_hh)`` or ``(weight_ih, weight_hh, bias_ih, bias_hh)`` of shapes
            ``(4 * hidden_size, size of the layer's input)``, ``(4 * hidden_size, hidden_size)`` and
            ``(4 * hidden_size)``; followed by ``weight_hr``, ``(proj_size, hidden_size)``, the
            output is its product (Sak et al. 2014), and states and `weight_hh` have ``proj_size``
            columns. A :class:`fusewire.ops.rnn.LayerWeights` may also hold peepholes (Gers and
            Schmidhuber 2000) and the gains of layer normalisation (Ba et al. 2016).
        bidirectional: Whether each layer also runs from the end to the beginning; its output is
            both directions' side by side.
        batch_first: Whether input and output are ``(batch, seq_len, ...)``.
        lengths: ``(batch)`` whole numbers, how many steps of each sequence exist; all if None. The
            output of the others is 0, and the final state is that after a sequence's last step.
        dropout: The probability with which a number between two layers is set to 0 in training.
        training: Whether dropout happens.
        locked: Whether `dropout` draws once per sequence for all of its steps.
        recurrent_dropout: The probability with which a unit of the hidden state is 0 in the gates'
            products in training, drawn once per sequence (Gal and Ghahramani 2016).
        zoneout: The probability with which a unit of the hidden and the cell state stays as it was
            (Krueger et al. 2017), one number or two; out of training, the share that stays.
        seed: What is drawn with; None draws from PyTorch's generator. Arrays need one.

    Returns:
        The output ``(seq_len, batch, directions * hidden_size)``, and the final hidden and cell
        state in the shape of the initial ones; tensors take part in autograd.

    Raises:
        TypeError: If an operand is neither array nor tensor, or their types differ.
        ValueError: If shapes or lengths do not fit together, a probability is none, or arrays are
            to be dropped without a seed.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> random = np.random.default_rng(0)
        >>> layer = (random.standard_normal((20, 3)), random.standard_normal((20, 5)))
        >>> output, (hidden, cell) = fw.lstm(np.ones((7, 2, 3)), None, [layer])
        >>> output.shape, hidden.shape, bool((output[-1] == hidden[0]).all())
        ((7, 2, 5), (1, 2, 5), True)
    """
    rates = dropout, training, locked, recurrent_dropout, zoneout_pair(zoneout)
    options = Options("lstm", bidirectional, batch_first, lengths, *rates, seed=seed)
    output, (hidden, cell) = run(options, input, None if state is None else pair(state), weights)
    return output, (hidden, cell)


def gru(
    input: Any,
    state: Any | None,
    weights: Sequence[Sequence[Any]],
    *,
    reset_after: bool = True,
    bidirectional: bool = False,
    batch_first: bool = False,
    lengths: Any = None,
    dropout: float = 0.0,
    training: bool = False,
    locked: bool = False,
    recurrent_dropout: float = 0.0,
    zoneout: float | tuple[float, float] = 0.0,
    seed: int | None = None,
) -> tuple[Any, Any]:
    """Runs layers of gated recurrent units over whole sequences.

    ``r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)``, ``z`` likewise,
    ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``, ``h = (1 - z) n + z h``, as in `torch.nn.GRU`.

    What is not named here is as for :func:`lstm`.

    Args:
        input: ``(seq_len, batch, input_size)`` or ``(seq_len, input_size)``.
        state: The initial hidden state, ``(layers * directions, batch, hidden_size)``.
        weights: As for :func:`lstm`, with ``3 * hidden_size`` rows, and without projections,
            peepholes and a normalised cell state.
        reset_after: Whether the reset gate scales the product, as above and in cuDNN; otherwise it
            scales the state before the product, ``W_hn (r h)``, as in Cho et al. 2014.
        bidirectional: See there; so are the others.
        batch_first: See there.
        lengths: See there.
        dropout: See there.
        training: See there.
        locked: See there.
        recurrent_dropout: See there.
        zoneout: A single probability.
        seed: See there.

    Returns:
        The output ``(seq_len, batch, directions * hidden_size)``, and the final hidden state.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> layer = (np.zeros((6, 3)), np.zeros((6, 2)))
        >>> fw.gru(np.ones((2, 1, 3)), np.ones((1, 1, 2)), [layer])[1]
        array([[[0.25, 0.25]]])
    """
    rates = dropout, training, locked, recurrent_dropout, zoneout_pair(zoneout)
    options = Options("gru", bidirectional, batch_first, lengths, *rates, reset_after, seed)
    output, (hidden,) = run(options, input, None if state is None else [state], weights)
    return output, hidden


def rnn(
    input: Any,
    state: Any | None,
    weights: Sequence[Sequence[Any]],
    nonlinearity: Nonlinearity = "tanh",
    *,
    bidirectional: bool = False,
    batch_first: bool = False,
    lengths: Any = None,
    dropout: float = 0.0,
    training: bool = False,
    locked: bool = False,
    recurrent_dropout: float = 0.0,
    zoneout: float | tuple[float, float] = 0.0,
    seed: int | None = None,
) -> tuple[Any, Any]:
    """Runs layers of Elman's recurrent network over whole sequences.

    ``h = tanh(W_ih x + b_ih + W_hh h + b_hh)``, as in `torch.nn.RNN`.

    What is not named here is as for :func:`lstm`.

    Args:
        input: ``(seq_len, batch, input_size)`` or ``(seq_len, input_size)``.
        state: The initial hidden state, ``(layers * directions, batch, hidden_size)``.
        weights: As for :func:`gru`, with ``hidden_size`` rows.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        bidirectional: See there; so are the others.
        batch_first: See there.
        lengths: See there.
        dropout: See there.
        training: See there.
        locked: See there.
        recurrent_dropout: See there.
        zoneout: A single probability.
        seed: See there.

    Returns:
        The output ``(seq_len, batch, directions * hidden_size)``, and the final hidden state.

    Raises:
        ValueError: As for :func:`lstm`, or if there is no such nonlinearity.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> add = (np.ones((1, 1)), np.ones((1, 1)))
        >>> fw.rnn(np.array([[1.0], [2.0], [3.0]]), None, [add], "relu")[0].ravel()
        array([1., 3., 6.])
    """
    kind = elman(nonlinearity)
    rates = dropout, training, locked, recurrent_dropout, zoneout_pair(zoneout)
    options = Options(kind, bidirectional, batch_first, lengths, *rates, seed=seed)
    output, (hidden,) = run(options, input, None if state is None else [state], weights)
    return output, hidden


def elman(nonlinearity: str) -> str:
    """The kind of Elman's cell."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity must be 'tanh' or 'relu', but is {nonlinearity!r}")
    return nonlinearity


def pair(state: Any) -> list[Any]:
    """The two states of an LSTM."""
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise TypeError("the state of an LSTM must be a pair of hidden and cell state")
    return list(state)


def run(
    options: Options, input: Any, states: list[Any] | None, weights: Sequence[Sequence[Any]]
) -> tuple[Any, list[Any]]:
    """Runs layers by the engine that the input asks for."""
    check_options(options)
    if is_tensor(input):
        from fusewire.ops.rnn import autograd

        return autograd.run(options, input, states, weights)
    if isinstance(input, np.ndarray):
        from fusewire.ops.rnn import array

        return array.run(options, input, states, weights)
    raise TypeError(
        f"input must be a NumPy array or a PyTorch tensor, but is {type(input).__name__}"
    )
