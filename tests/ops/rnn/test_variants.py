"""Cells beyond torch.nn's: definition, gradients of both orders and doors, what is drawn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence

import fusewire as fw
from fusewire.ops.rnn import LayerWeights, gru_backward, lstm_backward, reference, rnn_backward

CALLS = {
    "lstm": (fw.lstm, lstm_backward),
    "gru": (fw.gru, gru_backward),
    "tanh": (fw.rnn, rnn_backward),
    "relu": (
        lambda *operands, **options: fw.rnn(*operands, "relu", **options),
        lambda *operands, **options: rnn_backward(*operands, "relu", **options),
    ),
}
VARIANTS = [
    ("lstm", {"proj_size": 3}, {}),
    ("lstm", {"peepholes": True}, {}),
    ("lstm", {"layer_norm": True}, {}),
    ("lstm", {"layer_norm": True, "peepholes": True, "proj_size": 2}, {"zoneout": (0.2, 0.4)}),
    ("gru", {}, {"reset_after": False}),
    ("gru", {"layer_norm": True}, {}),
    ("gru", {"layer_norm": True}, {"reset_after": False, "zoneout": 0.3}),
    ("tanh", {"layer_norm": True}, {"zoneout": 0.3}),
    ("relu", {}, {"zoneout": 0.3}),
]


def module_of(kind, *sizes, dtype=torch.float64, **options):
    torch.manual_seed(0)
    if kind in ("tanh", "relu"):
        return fw.nn.RNN(*sizes, nonlinearity=kind, dtype=dtype, **options)
    return getattr(fw.nn, kind.upper())(*sizes, dtype=dtype, **options)


def operands(kind, batch=3, seq_len=4, sizes=(2, 5), bias=True, directions=1, **options):
    """Input, states and weights that require gradients; and how weights go into a call."""
    module = module_of(kind, *sizes, bias=bias, bidirectional=directions == 2, **options)
    fields = [name.partition("_l")[0] for name in module._all_weights[0]]
    width = options.get("proj_size") or sizes[1]
    states = [torch.randn(directions, batch, width, dtype=torch.float64)]
    if kind == "lstm":
        states.append(torch.randn(directions, batch, sizes[1], dtype=torch.float64))
    x = torch.randn(seq_len, batch, sizes[0], dtype=torch.float64)
    flat = [x, *states, *(weight for names in module.all_weights for weight in names)]
    flat = [tensor.detach().clone().requires_grad_() for tensor in flat]

    def gather(flat):
        x, *rest = flat
        states, weights = rest[: len(states_of)], rest[len(states_of) :]
        entries = [
            LayerWeights(**dict(zip(fields, weights[first : first + len(fields)], strict=True)))
            for first in range(0, len(weights), len(fields))
        ]
        return x, tuple(states) if kind == "lstm" else states[0], entries

    states_of = states
    return flat, gather


def flatten(output, final):
    return [output, *(final if isinstance(final, (tuple, list)) else [final])]


@pytest.mark.parametrize(("kind", "options", "asked"), VARIANTS, ids=str)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_shape_is_as_defined(kind, options, asked, data):
    size = data.draw(st.sampled_from([4, 7, 33]))
    batch, seq_len = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 5))
    bias = data.draw(st.booleans())
    flat, gather = operands(kind, batch, seq_len, (3, size), bias, **options)
    x, state, weights = gather([tensor.detach().numpy() for tensor in flat])
    states = state if kind == "lstm" else (state, state)
    zoneout = asked.get("zoneout", 0.0)
    expected = reference.layer(
        kind,
        x,
        states[0][0],
        states[1][0],
        weights[0],
        reset_after=asked.get("reset_after", True),
        zoneout=zoneout if isinstance(zoneout, tuple) else (zoneout, zoneout),
    )
    call, _ = CALLS[kind]
    for got in (call(x, state, weights, **asked), call(*gather(flat), **asked)):
        output, *finals = (
            np.asarray(t.detach() if torch.is_tensor(t) else t) for t in flatten(*got)
        )
        np.testing.assert_allclose(output, expected[0], atol=1e-12)
        for final, wanted in zip(finals, expected[1:], strict=False):
            np.testing.assert_allclose(final[0], wanted, atol=1e-12)


@pytest.mark.parametrize("lengths", [None, [2, 4, 0]], ids=str)
@pytest.mark.parametrize(("kind", "options", "asked"), VARIANTS, ids=str)
def test_gradients_of_both_orders(kind, options, asked, lengths):
    flat, gather = operands(kind, directions=2, **options)
    asked = {**asked, "lengths": lengths, "bidirectional": True, "seed": 3}
    asked |= {"training": True, "recurrent_dropout": 0.3}
    call, backward = CALLS[kind]

    def run(*flat):
        return tuple(flatten(*call(*gather(flat), **asked)))

    if kind != "relu":
        assert torch.autograd.gradcheck(run, flat, fast_mode=True)
        assert torch.autograd.gradgradcheck(run, flat, fast_mode=True)
    # Without anything drawn, both doors have the same gradients.
    asked |= {"training": False}
    results = run(*flat)
    outer = [torch.randn_like(result) for result in results]
    gradients = torch.autograd.grad(results, flat, outer)
    arrays = [gradient.numpy() for gradient in outer]
    grad_state = tuple(arrays[1:]) if kind == "lstm" else arrays[1]
    x, state, weights = gather([tensor.detach().numpy() for tensor in flat])
    got = backward(arrays[0], grad_state, x, state, weights, **asked)
    ours = [
        got[0],
        *(got[1] if kind == "lstm" else [got[1]]),
        *(w for entry in got[2] for w in entry),
    ]
    for own, theirs in zip(ours, gradients, strict=True):
        np.testing.assert_allclose(own, theirs, atol=1e-11)


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
def test_arrays_are_dropped_by_a_seed_and_have_gradients(kind, locked):
    random = np.random.default_rng(0)
    module = module_of(kind, 3, 6, 2)
    weights = [tuple(w.detach().numpy() for w in entry) for entry in module.all_weights]
    x = random.standard_normal((5, 4, 3))
    options = {"dropout": 0.4, "recurrent_dropout": 0.3, "zoneout": 0.2, "locked": locked}
    options |= {"training": True, "seed": 7, "lengths": [5, 1, 0, 3]}
    call, backward = CALLS[kind]
    outer = random.standard_normal((5, 4, 6))

    def loss(x):
        return (call(x, None, weights, **options)[0] * outer).sum()

    assert loss(x) == loss(x)
    assert loss(x) != (call(x, None, weights, **{**options, "seed": 8})[0] * outer).sum()
    gradient = backward(outer, None, x, None, weights, **options)[0]
    direction = random.standard_normal(x.shape)
    expected = (loss(x + 1e-5 * direction) - loss(x - 1e-5 * direction)) / 2e-5
    np.testing.assert_allclose((gradient * direction).sum(), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="need a seed"):
        call(x, None, weights, **{**options, "seed": None})


def test_a_module_draws_in_training_only():
    module = module_of(
        "lstm", 4, 6, 2, dropout=0.5, locked=True, recurrent_dropout=0.4, zoneout=(0.1, 0.3)
    )
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    torch.manual_seed(1)
    first = module(x)[0]
    torch.manual_seed(1)
    assert torch.equal(module(x)[0], first)
    assert not torch.equal(module(x)[0], first)
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])


def test_locked_dropout_drops_the_same_at_each_step():
    # An identity between the layers shows the mask: a ReLU layer that passes on what it is given.
    eye, zero = np.eye(4), np.zeros((4, 4))
    x = np.ones((6, 3, 4))
    options = {"dropout": 0.5, "training": True, "seed": 0}
    locked, _ = fw.rnn(x, None, [(eye, zero)] * 2, "relu", locked=True, **options)
    assert set(np.unique(locked)) == {0.0, 2.0}
    assert (locked == locked[0]).all()
    free, _ = fw.rnn(x, None, [(eye, zero)] * 2, "relu", **options)
    assert not (free == free[0]).all()


@pytest.mark.parametrize("packed", [False, True])
def test_projections_are_torchs(packed):
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(5, 7, 2, bidirectional=True, proj_size=3).double()
    ours = fw.nn.LSTM(5, 7, 2, bidirectional=True, proj_size=3).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)
    results = []
    for module in (theirs, ours):
        given = pack_padded_sequence(x, [4, 6, 1], enforce_sorted=False) if packed else x
        output, (hidden, cell) = module(given)
        output = output.data if packed else output
        loss = output.square().sum() + hidden.sum() + (cell**3).sum()
        gradients = torch.autograd.grad(loss, [x, *module.parameters()])
        results.append([output, hidden, cell, *gradients])
    torch.testing.assert_close(*results)


def test_variants_compile_without_a_graph_break():
    module = module_of("gru", 4, 6, 2, reset_after=False, layer_norm=True, recurrent_dropout=0.2)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    compiled(x)[0].sum().backward()
    module.eval()
    torch.testing.assert_close(compiled(x), module(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh", "relu"])
def test_16_bits_are_those_of_float32_rounded_once(kind, dtype):
    module = module_of(kind, 5, 7, 2, bidirectional=True, dtype=dtype)
    wide = module_of(kind, 5, 7, 2, bidirectional=True, dtype=torch.float32)
    wide.load_state_dict(module.state_dict())
    x = torch.randn(6, 3, 5).to(dtype).requires_grad_()
    outputs = [module(x)[0], wide(x.float())[0].to(dtype)]
    assert torch.equal(*outputs)
    gradients = [torch.autograd.grad(output.float().square().sum(), x)[0] for output in outputs]
    assert gradients[0].dtype == dtype
    torch.testing.assert_close(*gradients)


def test_half_arrays():
    flat, gather = operands("lstm", peepholes=True)
    half = [tensor.detach().numpy().astype(np.float16) for tensor in flat]
    output, state = fw.lstm(*gather(half))
    expected, _ = fw.lstm(*gather([array.astype(np.float32) for array in half]))
    np.testing.assert_array_equal(output, expected.astype(np.float16))
    gradients = lstm_backward(output, state, *gather(half))
    assert {array.dtype for array in gradients[2][0]} == {np.dtype(np.float16)}
    x, initial, weights = gather(half)
    with pytest.raises(TypeError, match="float16 like the input, but one is float64"):
        fw.lstm(x, (initial[0], initial[1].astype(np.float64)), weights)


def test_bad_weights_and_options_are_told():
    flat, gather = operands("lstm", layer_norm=True, peepholes=True, proj_size=3)
    x, state, (entry,) = gather([tensor.detach().numpy() for tensor in flat])
    for words, change in [
        (r"peephole of entry 0 must have shape \(3, 5\)", {"peephole": np.zeros((3, 4))}),
        (r"weight_hr of entry 0 must have shape \(3, 5\)", {"weight_hr": np.zeros((3, 4))}),
        (r"norm_hh of entry 0 must have shape \(20,\)", {"norm_hh": np.zeros(5)}),
        ("norm_ih and norm_hh must be given together", {"norm_hh": None}),
        ("bias_cell needs norm_cell", {"norm_cell": None}),
    ]:
        with pytest.raises(ValueError, match=words):
            fw.lstm(x, state, [entry._replace(**change)])
    with pytest.raises(ValueError, match="peephole is for an LSTM, not for gru"):
        fw.gru(
            x, None, [LayerWeights(*map(np.zeros, [(15, 2), (15, 5)]), peephole=np.zeros((3, 5)))]
        )
    for words, options in [
        ("recurrent_dropout must be from 0 to 1, but is 2", {"recurrent_dropout": 2}),
        ("zoneout must be from 0 to 1, but is -1", {"zoneout": (0.0, -1)}),
    ]:
        with pytest.raises(ValueError, match=words):
            fw.lstm(x, state, [entry], **options)
        with pytest.raises(ValueError, match=words):
            fw.nn.LSTM(2, 5, **options)
    with pytest.raises(ValueError, match="layer_norm, recurrent_dropout and zoneout are for"):
        fw.nn.MinGRU(2, 5, layer_norm=True)
