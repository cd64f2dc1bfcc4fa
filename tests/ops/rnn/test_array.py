"""Recurrent layers on arrays, against their definition in float64 and finite differences."""

import numpy as np
import pytest
from ml_dtypes import bfloat16

import fusewire as fw
from fusewire.ops.rnn import gru_backward, lstm_backward, reference, rnn_backward

KINDS = ["tanh", "relu", "lstm", "gru"]
GATES = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3}


def call(kind, x, state, weights, **options):
    """Any cell; states are a list in, and a list out."""
    match kind:
        case "lstm":
            output, final = fw.lstm(x, state, weights, **options)
            return output, list(final)
        case "gru":
            output, final = fw.gru(x, state and state[0], weights, **options)
        case _:
            output, final = fw.rnn(x, state and state[0], weights, kind, **options)
    return output, [final]


def call_backward(kind, grad_output, grad_state, x, state, weights, **options):
    match kind:
        case "lstm":
            grad_input, grad_initial, grad_weights = lstm_backward(
                grad_output, grad_state, x, state, weights, **options
            )
            return [grad_input, *grad_initial, *sum(grad_weights, ())]
        case "gru":
            results = gru_backward(grad_output, grad_state[0], x, state[0], weights, **options)
        case _:
            results = rnn_backward(
                grad_output, grad_state[0], x, state[0], weights, kind, **options
            )
    grad_input, grad_initial, grad_weights = results
    return [grad_input, grad_initial, *sum(grad_weights, ())]


def operands(kind, seq_len=5, batch=3, input_size=4, hidden_size=7, layers=1, directions=1):
    random = np.random.default_rng(0)
    rows = GATES[kind] * hidden_size
    weights = []
    for layer in range(layers):
        for _ in range(directions):
            width = directions * hidden_size if layer else input_size
            shapes = [(rows, width), (rows, hidden_size), (rows,), (rows,)]
            weights.append(tuple(random.uniform(-0.5, 0.5, shape) for shape in shapes))
    shape = (layers * directions, batch, hidden_size)
    state = [random.standard_normal(shape) for _ in range(2 if kind == "lstm" else 1)]
    return random.standard_normal((seq_len, batch, input_size)), state, weights


def single(numbers):
    return [array.astype(np.float32) for array in numbers]


@pytest.mark.parametrize("hidden_size", [1, 7, 16, 33])
@pytest.mark.parametrize("kind", KINDS)
def test_forward_in_both_precisions(kind, hidden_size):
    x, state, weights = operands(kind, hidden_size=hidden_size)
    hidden, cell = state[0][0], state[-1][0]
    expected, *finals = reference.layer(kind, x, hidden, cell, weights[0])
    output, final = call(kind, x, state, weights)
    np.testing.assert_allclose(output, expected, atol=1e-13)
    for got, wanted in zip(final, finals, strict=False):
        np.testing.assert_allclose(got[0], wanted, atol=1e-13)
    output, _ = call(kind, *map(np.float32, [x]), single(state), [single(weights[0])])
    assert output.dtype == np.float32
    # Of the largest, because states without a bound grow, and each sum is made of all of them.
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_gradient_by_finite_differences(kind, bidirectional, layers):
    x, state, weights = operands(kind, layers=layers, directions=1 + bidirectional)
    options = {"bidirectional": bidirectional, "lengths": [3, 5, 0]}
    output, final = call(kind, x, state, weights, **options)
    assert not output[3:, 0].any()
    assert not output[:, 2].any()
    np.testing.assert_array_equal(final[0][:, 2], state[0][:, 2])
    random = np.random.default_rng(1)
    outer = [random.standard_normal(array.shape) for array in (output, *final)]

    def loss():
        output, final = call(kind, x, state, weights, **options)
        return sum((g * x).sum() for g, x in zip(outer, (output, *final), strict=True))

    gradients = call_backward(kind, outer[0], outer[1:], x, state, weights, **options)
    for array, gradient in zip([x, *state, *sum(weights, ())], gradients, strict=True):
        assert gradient.shape == array.shape
        before, direction = array.copy(), random.standard_normal(array.shape)
        ends = []
        for step in (1e-5, -1e-5):
            array[...] = before + step * direction
            ends.append(loss())
        array[...] = before
        expected = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose((gradient * direction).sum(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_layouts_of_the_batch(kind):
    x, state, weights = operands(kind, layers=2)
    output, final = call(kind, x, state, weights)
    swapped, _ = call(kind, x.swapaxes(0, 1), state, weights, batch_first=True)
    np.testing.assert_array_equal(swapped.swapaxes(0, 1), output)
    strided, _ = call(kind, np.repeat(x, 2, axis=1)[:, ::2], state, weights)
    np.testing.assert_array_equal(strided, output)
    alone, alone_final = call(kind, x[:, 1], [s[:, 1] for s in state], weights)
    np.testing.assert_array_equal(alone, output[:, 1])
    for got, expected in zip(alone_final, final, strict=True):
        np.testing.assert_array_equal(got, expected[:, 1])
    without, _ = call(kind, x, None, weights)
    zeros, _ = call(kind, x, [np.zeros_like(s) for s in state], weights)
    np.testing.assert_array_equal(without, zeros)


@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (0, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_do(kind, shape):
    x, state, weights = operands(kind, *shape)
    output, final = call(kind, x, state, weights)
    assert output.shape == (*shape, 7)
    np.testing.assert_array_equal(final[0], state[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seq_len", "lengths", "layers"), [(3, [0, 0], 1), (0, None, 2)])
def test_no_step_has_no_gradient(kind, seq_len, lengths, layers):
    x, state, weights = operands(kind, seq_len, 2, 4, 7, layers)
    grad_output, grad_state = np.ones((seq_len, 2, 7)), [np.ones_like(part) for part in state]
    of_input, *rest = call_backward(
        kind, grad_output, grad_state, x, state, weights, lengths=lengths
    )
    initial, of_weights = (rest[: len(state)], rest[len(state) :])
    np.testing.assert_array_equal(of_input, np.zeros_like(x))
    for got, expected in zip(initial, grad_state, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert all(not gradient.any() for gradient in of_weights)


def test_more_steps_than_memory_holds_are_an_error():
    _, _, weights = operands("lstm")
    x = np.broadcast_to(0.0, (2**44, 3, 4))
    with pytest.raises(MemoryError, match=r"allocate|too many"):
        fw.lstm(x, None, weights)


def test_lengths_are_those_of_shorter_sequences():
    x, state, weights = operands("gru", seq_len=6, batch=4, directions=2)
    lengths = np.array([2, 6, 1, 6])
    output, final = call("gru", x, state, weights, lengths=lengths, bidirectional=True)
    for index, length in enumerate(lengths):
        alone, alone_final = call(
            "gru", x[:length, index], [state[0][:, index]], weights, bidirectional=True
        )
        np.testing.assert_array_equal(output[:length, index], alone)
        np.testing.assert_array_equal(final[0][:, index], alone_final[0])


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_sixteen_bits_are_computed_in_float32_and_rounded_once(kind, dtype):
    rng = np.random.default_rng(0)
    gates, states = GATES[kind], 2 if kind == "lstm" else 1

    def numbers(*shape):
        return rng.standard_normal(shape).astype(dtype)

    def wide(arrays):
        return [array.astype(np.float32) for array in arrays]

    x, state = numbers(5, 2, 3), [numbers(1, 2, 4) for _ in range(states)]
    weights = [numbers(gates * 4, 3), numbers(gates * 4, 4), numbers(gates * 4), numbers(gates * 4)]
    output, final = call(kind, x, state, [weights])
    exact_output, exact_final = call(kind, *wide([x]), wide(state), [wide(weights)])
    gradients = call_backward(kind, output, state, x, state, [weights])
    exact = call_backward(
        kind, *wide([output]), wide(state), *wide([x]), wide(state), [wide(weights)]
    )
    for actual, expected in zip(
        [output, *final, *gradients], [exact_output, *exact_final, *exact], strict=True
    ):
        assert actual.dtype == dtype
        np.testing.assert_array_equal(actual, expected.astype(dtype))
    with pytest.raises(TypeError, match=f"must be {np.dtype(dtype)} like the input, but one is f"):
        call(kind, x, wide(state), [weights])


def test_the_number_of_threads_changes_no_bit():
    before = fw.get_num_threads()
    x, state, weights = operands("lstm", 9, 70, 5, 20)
    try:
        results = []
        for threads in (1, 2, 5):
            fw.set_num_threads(threads)
            output, _ = call("lstm", x, state, weights)
            gradients = call_backward("lstm", output, state, x, state, weights)
            results.append(b"".join(array.tobytes() for array in [output, *gradients]))
    finally:
        fw.set_num_threads(before)
    assert len(set(results)) == 1


INPUT, STATE, WEIGHTS = operands("lstm")


@pytest.mark.parametrize(
    ("error", "words", "bad"),
    [
        (ValueError, "input must have 4 features, but has 5", lambda: (np.zeros((2, 3, 5)), STATE)),
        (ValueError, "2 or 3 dimensions", lambda: (np.zeros(4), STATE)),
        (ValueError, r"shape \(1, 3, 7\)", lambda: (INPUT, [STATE[0], STATE[1][:, :2]])),
        (TypeError, "pair of hidden and cell", lambda: (INPUT, STATE[0])),
        (TypeError, "input must be .* but is list", lambda: ([[1.0]], STATE)),
        (TypeError, "state must be .* but is list", lambda: (INPUT, [[1.0], STATE[1]])),
        (TypeError, "float64 like", lambda: (INPUT, single(STATE))),
    ],
)
def test_bad_input_is_told(error, words, bad):
    with pytest.raises(error, match=words):
        fw.lstm(*bad(), WEIGHTS)


def test_bad_options_are_told():
    for words, options in [
        ("lengths must be 3 whole numbers", {"lengths": [1, 2]}),
        ("from 0 to 5, but one is 6", {"lengths": [1, 6, 2]}),
        ("2 entries for each layer, but has 1", {"bidirectional": True}),
        ("dropout must be from 0 to 1", {"dropout": 1.5}),
    ]:
        with pytest.raises(ValueError, match=words):
            fw.lstm(INPUT, STATE, WEIGHTS, **options)
    with pytest.raises(ValueError, match="entry 0 has 1"):
        fw.lstm(INPUT, STATE, [WEIGHTS[0][:1]])
    with pytest.raises(ValueError, match="entry 1 of weights must have the same"):
        fw.lstm(INPUT, STATE, [WEIGHTS[0], WEIGHTS[0][:2]])
    with pytest.raises(ValueError, match=r"\(3 \* hidden_size, hidden_size\)"):
        fw.gru(INPUT, STATE[0], WEIGHTS)
    with pytest.raises(ValueError, match="arrays need a seed"):
        fw.lstm(INPUT, None, operands("lstm", layers=2)[2], dropout=0.5, training=True)
    with pytest.raises(ValueError, match="'tanh' or 'relu'"):
        fw.rnn(INPUT, None, operands("tanh")[2], "sine")
