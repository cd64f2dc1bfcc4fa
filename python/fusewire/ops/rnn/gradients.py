"""Gradients of recurrent networks for arrays; tensors have autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusewire.ops.rnn.cells import Nonlinearity, elman, pair
from fusewire.ops.rnn.options import named_options


def lstm_backward(
    grad_output: Any,
    grad_state: tuple[Any, Any] | None,
    input: Any,
    state: tuple[Any, Any] | None,
    weights: Sequence[Sequence[Any]],
    **options: Any,
) -> tuple[Any, tuple[Any, Any], list[tuple[Any, ...]]]:
    """Computes the gradients of the operands of :func:`fusewire.lstm`, for arrays.

    Args:
        grad_output: The gradient of the output.
        grad_state: The gradients of the final hidden and cell state; zeros if None.
        input: As in the forward call; so are the others.
        state: As in the forward call.
        weights: As in the forward call.
        **options: Those of the forward call, by name.

    Returns:
        The gradients of input, initial states and weights, shaped like them.

    Raises:
        TypeError: If an operand is no array, their types differ, or there is no such option.
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
    chosen = named_options("lstm", options)
    initial = None if state is None else pair(state)
    outer = None if grad_state is None else pair(grad_state)
    from fusewire.ops.rnn import array

    grad_input, (hidden, cell), grad_weights = array.backward(
        chosen, grad_output, outer, input, initial, weights
    )
    return grad_input, (hidden, cell), grad_weights


def gru_backward(
    grad_output: Any,
    grad_state: Any | None,
    input: Any,
    state: Any | None,
    weights: Sequence[Sequence[Any]],
    **options: Any,
) -> tuple[Any, Any, list[tuple[Any, ...]]]:
    """Computes the gradients of the operands of :func:`fusewire.gru`; see :func:`lstm_backward`."""
    chosen = named_options("gru", options)
    from fusewire.ops.rnn import array

    return array.backward_single(chosen, grad_output, grad_state, input, state, weights)


def rnn_backward(
    grad_output: Any,
    grad_state: Any | None,
    input: Any,
    state: Any | None,
    weights: Sequence[Sequence[Any]],
    nonlinearity: Nonlinearity = "tanh",
    **options: Any,
) -> tuple[Any, Any, list[tuple[Any, ...]]]:
    """Computes the gradients of the operands of :func:`fusewire.rnn`; see :func:`lstm_backward`."""
    chosen = named_options(elman(nonlinearity), options)
    from fusewire.ops.rnn import array

    return array.backward_single(chosen, grad_output, grad_state, input, state, weights)
