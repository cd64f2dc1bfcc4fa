"""Recurrent networks over whole sequences: one door for NumPy arrays and PyTorch tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fusewire.ops.door import is_tensor
from fusewire.ops.rnn import array
from fusewire.ops.rnn.sequences import Options

__all__ = ["gru", "gru_backward", "lstm", "lstm_backward", "rnn", "rnn_backward"]

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
) -> tuple[Any, tuple[Any, Any]]:
    """Runs layers of long short-term memory over whole sequences.

    ``i, f, g, o = W_ih x + b_ih + W_hh h + b_hh``, ``c = sigmoid(f) c + sigmoid(i) tanh(g)``,
    ``h = sigmoid(o) tanh(c)``, as in `torch.nn.LSTM`. Tensors on other devices than the CPU, and of
    other types than float32 and float64, run PyTorch's own layers.

    Args:
        input: ``(seq_len, batch, input_size)``, or ``(seq_len, input_size)`` for a single
            sequence; an array or a tensor, float32 or float64.
        state: The initial hidden and cell state, each ``(layers * directions, batch,
            hidden_size)``, without the batch for a single sequence; zeros if None.
        weights: For each layer and direction, a layer's directions next to each other:
            ``(weight_ih, weight_hh)`` or ``(weight_ih, weight_hh, bias_ih, bias_hh)`` of shapes
            ``(4 * hidden_size, size of the layer's input)``, ``(4 * hidden_size, hidden_size)`` and
            ``(4 * hidden_size)``.
        bidirectional: Whether each layer also runs from the end to the beginning; its output is
            both directions' side by side.
        batch_first: Whether input and output are ``(batch, seq_len, ...)``.
        lengths: ``(batch)`` whole numbers, how many steps of each sequence exist; all if None. The
            output of the others is 0, and the final state is that after a sequence's last step.
        dropout: The probability with which a number between two layers is set to 0 in training.
        training: Whether dropout happens.

    Returns:
        The output ``(seq_len, batch, directions * hidden_size)``, and the final hidden and cell
        state in the shape of the initial ones; tensors take part in autograd.

    Raises:
        TypeError: If an operand is neither array nor tensor, or their types differ.
        ValueError: If shapes or lengths do not fit together, or dropout is asked of arrays.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> random = np.random.default_rng(0)
        >>> layer = (random.standard_normal((20, 3)), random.standard_normal((20, 5)))
        >>> output, (hidden, cell) = fw.lstm(np.ones((7, 2, 3)), None, [layer])
        >>> output.shape, hidden.shape, bool((output[-1] == hidden[0]).all())
        ((7, 2, 5), (1, 2, 5), True)
    """
    options = Options("lstm", bidirectional, batch_first, lengths, dropout, training)
    output, (hidden, cell) = _run(options, input, None if state is None else _pair(state), weights)
    return output, (hidden, cell)


def gru(
    input: Any,
    state: Any | None,
    weights: Sequence[Sequence[Any]],
    *,
    bidirectional: bool = False,
    batch_first: bool = False,
    lengths: Any = None,
    dropout: float = 0.0,
    training: bool = False,
) -> tuple[Any, Any]:
    """Runs layers of gated recurrent units over whole sequences.

    ``r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)``, ``z`` likewise,
    ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``, ``h = (1 - z) n + z h``, as in `torch.nn.GRU`.

    Args:
        input: As for :func:`lstm`; so is what is not named here.
        state: The initial hidden state, ``(layers * directions, batch, hidden_size)``.
        weights: As for :func:`lstm`, with ``3 * hidden_size`` rows.
        bidirectional: As for :func:`lstm`.
        batch_first: As for :func:`lstm`.
        lengths: As for :func:`lstm`.
        dropout: As for :func:`lstm`.
        training: As for :func:`lstm`.

    Returns:
        The output ``(seq_len, batch, directions * hidden_size)``, and the final hidden state.

    Raises:
        TypeError: As for :func:`lstm`.
        ValueError: As for :func:`lstm`.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> layer = (np.zeros((6, 3)), np.zeros((6, 2)))
        >>> fw.gru(np.ones((2, 1, 3)), np.ones((1, 1, 2)), [layer])[1]
        array([[[0.25, 0.25]]])
    """
    options = Options("gru", bidirectional, batch_first, lengths, dropout, training)
    output, (hidden,) = _run(options, input, None if state is None else [state], weights)
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
) -> tuple[Any, Any]:
    """Runs layers of Elman's recurrent network over whole sequences.

    ``h = tanh(W_ih x + b_ih + W_hh h + b_hh)``, as in `torch.nn.RNN`.

    Args:
        input: As for :func:`lstm`; so is what is not named here.
        state: The initial hidden state, ``(layers * directions, batch, hidden_size)``.
        weights: As for :func:`lstm`, with ``hidden_size`` rows.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        bidirectional: As for :func:`lstm`.
        batch_first: As for :func:`lstm`.
        lengths: As for :func:`lstm`.
        dropout: As for :func:`lstm`.
        training: As for :func:`lstm`.

    Returns:
        The output ``(seq_len, batch, directions * hidden_size)``, and the final hidden state.

    Raises:
        TypeError: As for :func:`lstm`.
        ValueError: As for :func:`lstm`, or if there is no such nonlinearity.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> add = (np.ones((1, 1)), np.ones((1, 1)))
        >>> fw.rnn(np.array([[1.0], [2.0], [3.0]]), None, [add], "relu")[0].ravel()
        array([1., 3., 6.])
    """
    kind = _elman(nonlinearity)
    options = Options(kind, bidirectional, batch_first, lengths, dropout, training)
    output, (hidden,) = _run(options, input, None if state is None else [state], weights)
    return output, hidden


def lstm_backward(
    grad_output: Any,
    grad_state: tuple[Any, Any] | None,
    input: Any,
    state: tuple[Any, Any] | None,
    weights: Sequence[Sequence[Any]],
    *,
    bidirectional: bool = False,
    batch_first: bool = False,
    lengths: Any = None,
) -> tuple[Any, tuple[Any, Any], list[tuple[Any, ...]]]:
    """Computes the gradients of the operands of :func:`fusewire.lstm`, for arrays.

    Args:
        grad_output: The gradient of the output.
        grad_state: The gradients of the final hidden and cell state; zeros if None.
        input: As in the forward call; so are the others.
        state: As in the forward call.
        weights: As in the forward call.
        bidirectional: As in the forward call.
        batch_first: As in the forward call.
        lengths: As in the forward call.

    Returns:
        The gradients of input, initial states and weights, shaped like them.

    Raises:
        TypeError: If an operand is no array, or their types differ.
        ValueError: If shapes or lengths do not fit together.

    Example:
        >>> import numpy as np
        >>> from fusewire.ops.rnn import lstm_backward
        >>> layer = (np.ones((4, 2)), np.ones((4, 1)))
        >>> input = np.ones((3, 1, 2))
        >>> grad_input, _, _ = lstm_backward(np.ones((3, 1, 1)), None, input, None, [layer])
        >>> grad_input.shape
        (3, 1, 2)
    """
    options = Options("lstm", bidirectional, batch_first, lengths)
    initial = None if state is None else _pair(state)
    outer = None if grad_state is None else _pair(grad_state)
    grad_input, (hidden, cell), grad_weights = array.backward(
        options, grad_output, outer, input, initial, weights
    )
    return grad_input, (hidden, cell), grad_weights


def gru_backward(
    grad_output: Any,
    grad_state: Any | None,
    input: Any,
    state: Any | None,
    weights: Sequence[Sequence[Any]],
    *,
    bidirectional: bool = False,
    batch_first: bool = False,
    lengths: Any = None,
) -> tuple[Any, Any, list[tuple[Any, ...]]]:
    """Computes the gradients of the operands of :func:`fusewire.gru`; see :func:`lstm_backward`."""
    options = Options("gru", bidirectional, batch_first, lengths)
    return _backward(options, grad_output, grad_state, input, state, weights)


def rnn_backward(
    grad_output: Any,
    grad_state: Any | None,
    input: Any,
    state: Any | None,
    weights: Sequence[Sequence[Any]],
    nonlinearity: Nonlinearity = "tanh",
    *,
    bidirectional: bool = False,
    batch_first: bool = False,
    lengths: Any = None,
) -> tuple[Any, Any, list[tuple[Any, ...]]]:
    """Computes the gradients of the operands of :func:`fusewire.rnn`; see :func:`lstm_backward`."""
    options = Options(_elman(nonlinearity), bidirectional, batch_first, lengths)
    return _backward(options, grad_output, grad_state, input, state, weights)


def _elman(nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity must be 'tanh' or 'relu', but is {nonlinearity!r}")
    return nonlinearity


def _pair(state: Any) -> list[Any]:
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise TypeError("the state of an LSTM must be a pair of hidden and cell state")
    return list(state)


def _run(
    options: Options, input: Any, states: list[Any] | None, weights: Sequence[Sequence[Any]]
) -> tuple[Any, list[Any]]:
    if is_tensor(input):
        from fusewire.ops.rnn import autograd

        return autograd.run(options, input, states, weights)
    if isinstance(input, np.ndarray):
        return array.run(options, input, states, weights)
    raise TypeError(
        f"input must be a NumPy array or a PyTorch tensor, but is {type(input).__name__}"
    )


def _backward(
    options: Options,
    grad_output: Any,
    grad_state: Any | None,
    input: Any,
    state: Any | None,
    weights: Sequence[Sequence[Any]],
) -> tuple[Any, Any, list[tuple[Any, ...]]]:
    outer = None if grad_state is None else [grad_state]
    initial = None if state is None else [state]
    grad_input, (hidden,), grad_weights = array.backward(
        options, grad_output, outer, input, initial, weights
    )
    return grad_input, hidden, grad_weights
