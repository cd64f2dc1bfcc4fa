"""Recurrent networks whose gates do not see the last state, computed as scans over time.

Both are from Feng et al. 2024, "Were RNNs all we needed?".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusewire.ops.rnn.cells import run
from fusewire.ops.rnn.options import Options, named_options


def min_gru(
    input: Any,
    state: Any | None,
    weights: Sequence[Sequence[Any]],
    *,
    positive: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
    lengths: Any = None,
    dropout: float = 0.0,
    training: bool = False,
    locked: bool = False,
    seed: int | None = None,
) -> tuple[Any, Any]:
    """Runs layers of minGRU over whole sequences.

    ``z, c = W x + b``, ``h = (1 - sigmoid(z)) h + sigmoid(z) c``. What is not named here is as for
    :func:`fusewire.lstm`.

    Args:
        input: ``(seq_len, batch, input_size)`` or ``(seq_len, input_size)``.
        state: The initial state, ``(layers * directions, batch, hidden_size)``; zeros if None.
        weights: For each layer and direction ``(weight,)`` or ``(weight, bias)``, of shapes
            ``(2 * hidden_size, size of the layer's input)`` and ``(2 * hidden_size)``, the update
            gate's rows before the candidate's.
        positive: Whether the candidate is never negative, ``c + 0.5`` from 0 on and
            ``sigmoid(c)`` below, as in the paper's scan over logarithms.
        bidirectional: Whether each layer also runs from the end to the beginning.
        batch_first: Whether input and output are ``(batch, seq_len, ...)``.
        lengths: How many steps of each sequence exist.
        dropout: The probability with which a number between two layers is set to 0 in training.
        training: Whether dropout happens.
        locked: Whether `dropout` draws once per sequence for all of its steps.
        seed: What is drawn with; None draws from PyTorch's generator. Arrays need one.

    Returns:
        The output ``(seq_len, batch, directions * hidden_size)``, and the final state.

    Raises:
        TypeError: If an operand is neither array nor tensor, or their types differ.
        ValueError: If shapes or lengths do not fit together, a probability is none, or arrays are
            to be dropped without a seed.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> layer = (np.array([[0.0], [1.0]]),)
        >>> fw.min_gru(np.array([[4.0], [2.0]]), None, [layer])[0].ravel()
        array([2., 2.])
    """
    kind = _kind("min_gru", positive)
    rates = dropout, training, locked
    options = Options(kind, bidirectional, batch_first, lengths, *rates, seed=seed)
    output, (hidden,) = run(options, input, None if state is None else [state], weights)
    return output, hidden


def min_lstm(
    input: Any,
    state: Any | None,
    weights: Sequence[Sequence[Any]],
    *,
    positive: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
    lengths: Any = None,
    dropout: float = 0.0,
    training: bool = False,
    locked: bool = False,
    seed: int | None = None,
) -> tuple[Any, Any]:
    """Runs layers of minLSTM over whole sequences.

    ``f, i, c = W x + b``, ``f, i = sigmoid(f), sigmoid(i)``, ``h = (f h + i c) / (f + i)``.
    Arguments and results are those of :func:`min_gru`, with ``3 * hidden_size`` rows of weights in
    the order forget gate, input gate, candidate.

    Example:
        >>> import numpy as np
        >>> import fusewire as fw
        >>> layer = (np.array([[0.0], [0.0], [1.0]]),)
        >>> fw.min_lstm(np.array([[4.0], [2.0]]), None, [layer])[0].ravel()
        array([2., 2.])
    """
    kind = _kind("min_lstm", positive)
    rates = dropout, training, locked
    options = Options(kind, bidirectional, batch_first, lengths, *rates, seed=seed)
    output, (hidden,) = run(options, input, None if state is None else [state], weights)
    return output, hidden


def min_gru_backward(
    grad_output: Any,
    grad_state: Any | None,
    input: Any,
    state: Any | None,
    weights: Sequence[Sequence[Any]],
    *,
    positive: bool = False,
    **options: Any,
) -> tuple[Any, Any, list[tuple[Any, ...]]]:
    """Computes the gradients of the operands of :func:`min_gru`, for arrays.

    Args:
        grad_output: The gradient of the output.
        grad_state: That of the final state; zeros if None.
        input: As in the forward call; so are the others.
        state: As in the forward call.
        weights: As in the forward call.
        positive: As in the forward call.
        **options: The others of the forward call, by name.

    Returns:
        The gradients of input, initial state and weights, shaped like them.

    Raises:
        TypeError: If an operand is no array, their types differ, or there is no such option.
        ValueError: If shapes or lengths do not fit together.

    Example:
        >>> import numpy as np
        >>> from fusewire.ops.rnn import min_gru_backward
        >>> layer = (np.zeros((2, 1)),)
        >>> grads = min_gru_backward(np.ones((1, 1)), None, np.ones((1, 1)), None, [layer])
        >>> grads[2][0][0]
        array([[0. ],
               [0.5]])
    """
    chosen = named_options(_kind("min_gru", positive), options)
    from fusewire.ops.rnn import array

    return array.backward_single(chosen, grad_output, grad_state, input, state, weights)


def min_lstm_backward(
    grad_output: Any,
    grad_state: Any | None,
    input: Any,
    state: Any | None,
    weights: Sequence[Sequence[Any]],
    *,
    positive: bool = False,
    **options: Any,
) -> tuple[Any, Any, list[tuple[Any, ...]]]:
    """Computes the gradients of :func:`min_lstm`'s operands; see :func:`min_gru_backward`."""
    chosen = named_options(_kind("min_lstm", positive), options)
    from fusewire.ops.rnn import array

    return array.backward_single(chosen, grad_output, grad_state, input, state, weights)


def _kind(name: str, positive: bool) -> str:
    return f"{name}_positive" if positive else name
