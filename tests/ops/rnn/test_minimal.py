"""minGRU and minLSTM on arrays and tensors: definition, gradients of both orders, compilation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fusewire as fw
from fusewire.ops.rnn import (
    LayerWeights,
    composed,
    min_gru_backward,
    min_lstm_backward,
    reference,
)

CELLS = [
    (fw.min_gru, min_gru_backward, "min_gru", 2),
    (fw.min_lstm, min_lstm_backward, "min_lstm", 3),
]
VARIANTS = [(*cell, positive) for cell in CELLS for positive in (False, True)]


def operands(gates, seq_len=5, batch=3, input_size=4, hidden_size=7, layers=1, directions=1):
    random = np.random.default_rng(0)
    rows = gates * hidden_size
    weights = [
        (
            random.uniform(-1, 1, (rows, directions * hidden_size if layer else input_size)),
            random.uniform(-1, 1, rows),
        )
        for layer in range(layers)
        for _ in range(directions)
    ]
    state = random.standard_normal((layers * directions, batch, hidden_size))
    return random.standard_normal((seq_len, batch, input_size)), state, weights


def tensors(x, state, weights):
    """The same as leaves of autograd, and as a flat list."""
    x, state = torch.tensor(x, requires_grad=True), torch.tensor(state, requires_grad=True)
    weights = [[torch.tensor(w, requires_grad=True) for w in entry] for entry in weights]
    return x, state, weights, [x, state, *(w for entry in weights for w in entry)]


@pytest.mark.parametrize(("call", "_", "kind", "gates", "positive"), VARIANTS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_shape_is_as_defined(call, _, kind, gates, positive, data):
    seq_len = data.draw(st.integers(0, 9) | st.sampled_from([511, 512, 700]))
    batch, hidden_size = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([1, 7, 16, 65]))
    x, state, weights = operands(gates, seq_len, batch, 3, hidden_size)
    output, hidden = call(x, state, weights, positive=positive)
    sums = x @ weights[0][0].T + weights[0][1]
    name = f"{kind}_positive" if positive else kind
    expected, last = reference.scan(name, sums, state[0])
    np.testing.assert_allclose(output, expected, atol=1e-12)
    np.testing.assert_allclose(hidden[0], last, atol=1e-12)
    single = call(
        *map(np.float32, (x, state)), [tuple(map(np.float32, weights[0]))], positive=positive
    )
    assert single[0].dtype == np.float32
    np.testing.assert_allclose(single[0], expected, atol=2e-5)


@pytest.mark.parametrize("lengths", [None, [3, 5, 0]])
@pytest.mark.parametrize(("call", "backward", "_", "gates", "positive"), VARIANTS)
def test_gradients_of_both_orders(call, backward, _, gates, positive, lengths):
    shape = {"layers": 2, "directions": 2, "input_size": 2, "hidden_size": 3}
    options = {"positive": positive, "bidirectional": True, "lengths": lengths}
    x, state, weights = operands(gates, **shape)
    *_, flat = tensors(x, state, weights)

    def run(x, state, *flat):
        return call(x, state, list(zip(flat[::2], flat[1::2], strict=True)), **options)

    results = run(*flat)
    assert torch.autograd.gradcheck(run, flat, fast_mode=True)
    outer = [torch.randn_like(result) for result in results]
    gradients = torch.autograd.grad(results, flat, outer, create_graph=True)
    arrays = backward(outer[0].numpy(), outer[1].numpy(), x, state, weights, **options)
    flat_arrays = [arrays[0], arrays[1], *sum(arrays[2], ())]
    for ours, theirs in zip(flat_arrays, gradients, strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), atol=1e-12)
    if lengths is not None:
        assert torch.autograd.gradgradcheck(run, flat, fast_mode=True)


@pytest.mark.parametrize(("call", "backward", "_", "gates", "positive"), VARIANTS)
def test_the_number_of_threads_changes_no_bit(call, backward, _, gates, positive):
    before = fw.get_num_threads()
    x, state, weights = operands(gates, 1100, 2, 5, 20)
    results = set()
    try:
        for threads in (1, 2, 5):
            fw.set_num_threads(threads)
            output, _ = call(x, state, weights, positive=positive)
            gradients = backward(output, state, x, state, weights, positive=positive)
            arrays = [output, *gradients[:2], *gradients[2][0]]
            results.add(b"".join(array.tobytes() for array in arrays))
    finally:
        fw.set_num_threads(before)
    assert len(results) == 1


@pytest.mark.parametrize("seq_len", [30, 600])
@pytest.mark.parametrize("name", ["MinGRU", "MinLSTM"])
def test_the_error_is_no_larger_than_that_of_pytorchs_operators(name, seq_len):
    torch.manual_seed(0)
    layer = getattr(fw.nn, name)(24, 40)
    truth = getattr(fw.nn, name)(24, 40, dtype=torch.float64)
    truth.load_state_dict(layer.state_dict())
    kind = {"MinGRU": "min_gru", "MinLSTM": "min_lstm"}[name]

    def composed_layer(x):
        gates = torch.nn.functional.linear(x.flatten(0, 1), layer.weight_ih_l0, layer.bias_ih_l0)
        hidden = torch.zeros(x.shape[1], 40)
        return composed.scan(gates, hidden, kind=kind, batch_sizes=[], reverse=False)

    x = torch.randn(seq_len, 2, 24)
    results = []
    for run, rows in [(truth, x.double()), (layer, x), (composed_layer, x)]:
        leaf = rows.requires_grad_()
        output = run(leaf)[0].flatten()
        # The weights' gradients are the linear layer's, which has tests of its own.
        results.append([output, *torch.autograd.grad(output.square().sum(), leaf)])
    for expected, ours, theirs in zip(*results, strict=True):
        own, other = (
            (got.flatten() - expected.flatten()).norm() / expected.norm() for got in (ours, theirs)
        )
        assert own <= 1.2 * other


@pytest.mark.parametrize("name", ["MinGRU", "MinLSTM"])
def test_modules(name):
    torch.manual_seed(0)
    layer = getattr(fw.nn, name)(5, 7, 2, bidirectional=True, positive=True, dtype=torch.float64)
    assert [*layer.state_dict()][:2] == ["weight_ih_l0", "bias_ih_l0"]
    x = torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [2, 6, 1], enforce_sorted=False)
    output, hidden = layer(packed)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(output)
    alone, last = layer(x[:2, 0])
    torch.testing.assert_close(padded[:2, 0], alone)
    torch.testing.assert_close(hidden[:, 0], last)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    gradients = [torch.autograd.grad(run(x)[0].square().sum(), x) for run in (layer, compiled)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize(("call", "backward", "_", "gates"), CELLS)
def test_arrays_are_dropped_by_a_seed_and_have_gradients(call, backward, _, gates, locked):
    x, _, weights = operands(gates, layers=2)
    options = {"dropout": 0.4, "training": True, "locked": locked, "seed": 7}
    lower, _ = call(x, None, weights[:1])
    shape = (1, *lower.shape[1:]) if locked else lower.shape
    mask = (np.random.Generator(np.random.Philox(7)).random(shape) < 0.6) / 0.6
    output, _ = call(x, None, weights, **options)
    np.testing.assert_allclose(output, call(lower * mask, None, weights[1:])[0], atol=1e-12)
    outer = np.cos(output)
    got = backward(outer, None, x, None, weights, **options)
    upper = backward(outer, None, lower * mask, None, weights[1:])
    below = backward(upper[0] * mask, None, x, None, weights[:1])
    pairs = [(got[0], below[0]), *zip(got[2][0], below[2][0], strict=True)]
    pairs += zip(got[2][1], upper[2][0], strict=True)
    for actual, expected in pairs:
        np.testing.assert_allclose(actual, expected, atol=1e-12)
    with pytest.raises(ValueError, match="need a seed"):
        call(x, None, weights, **{**options, "seed": None})


@pytest.mark.parametrize(("call", "_", "__", "gates"), CELLS)
def test_tensors_are_dropped_by_a_seed(call, _, __, gates):
    x, _, weights = operands(gates, layers=2)
    x, weights = torch.tensor(x), [tuple(map(torch.tensor, entry)) for entry in weights]
    outputs = [
        call(x, None, weights, dropout=0.4, training=True, locked=True, seed=seed)[0]
        for seed in (-3, -3, 4)
    ]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_what_only_other_cells_have_is_refused():
    x, state, weights = operands(2)
    for name, shape in [("weight_hh", (14, 7)), ("peephole", (3, 7)), ("norm_ih", (14,))]:
        entry = LayerWeights(*weights[0][:1], **{name: np.zeros(shape)})
        with pytest.raises(ValueError, match=f"min_gru has no {name}"):
            fw.min_gru(x, state, [entry], positive=True)
    for name in ("zoneout", "recurrent_dropout", "reset_after", "kind"):
        with pytest.raises(TypeError, match=f"min_gru has no option '{name}'"):
            min_gru_backward(x, None, x, state, weights, **{name: 0.5})


def test_bad_input_is_told():
    x, state, weights = operands(2)
    with pytest.raises(ValueError, match=r"entry 1 must have shape \(14, 7\), but has \(14, 4\)"):
        fw.min_gru(x, None, weights * 2)
    with pytest.raises(ValueError, match="entry 0 has 4"):
        fw.min_gru(x, state, [weights[0] * 2])
    with pytest.raises(ValueError, match=r"\(3 \* hidden_size, input_size\), but has \(14, 4\)"):
        fw.min_lstm(x, state, weights)
    with pytest.raises(ValueError, match=r"state must have shape \(1, 3, 7\)"):
        fw.min_gru(x, state[:, :2], weights)
