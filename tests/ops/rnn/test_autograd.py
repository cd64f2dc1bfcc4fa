"""Recurrent layers on tensors: autograd of both orders, the dispatcher, compilation."""

import pytest
import torch

import fusewire as fw
from fusewire.ops.rnn import autograd, composed
from fusewire.ops.rnn.options import GATES, Options, Variant
from fusewire.ops.rnn.weights import LayerWeights

KINDS = ["tanh", "relu", "lstm", "gru"]


def operands(kind, batch=3, seq_len=4, input_size=2, hidden_size=3, directions=1, grad=True):
    generator = torch.Generator().manual_seed(0)
    rows = GATES[kind] * hidden_size
    states = [(directions, batch, hidden_size)] * (2 if kind == "lstm" else 1)
    weights = [(rows, input_size), (rows, hidden_size), (rows,), (rows,)] * directions
    shapes = [(seq_len, batch, input_size), *states, *weights]
    tensors = [
        torch.randn(shape, generator=generator, dtype=torch.float64).mul_(0.7) for shape in shapes
    ]
    return [tensor.requires_grad_(grad) for tensor in tensors]


def function(kind, **options):
    """The call as a function of tensors only."""
    count = 2 if kind == "lstm" else 1

    def run(x, *tensors):
        flat = tensors[count:]
        weights = [flat[first : first + 4] for first in range(0, len(flat), 4)]
        chosen = Options(kind, **options)
        output, finals = autograd.run(chosen, x, list(tensors[:count]), weights)
        return output, *finals

    return run


@pytest.mark.parametrize("lengths", [None, [2, 4, 0]])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_both_orders(kind, bidirectional, lengths):
    sources = operands(kind, directions=1 + bidirectional)
    run = function(kind, bidirectional=bidirectional, lengths=lengths)
    assert torch.autograd.gradcheck(run, sources, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, sources, fast_mode=True)


@pytest.mark.parametrize("wanted", range(3))
def test_some_outputs_and_some_operands(wanted):
    sources = operands("lstm")
    for source in sources[1::2]:
        source.requires_grad_(False)
    run = function("lstm")
    assert torch.autograd.gradcheck(lambda *tensors: run(*tensors)[wanted], sources)
    assert torch.autograd.gradgradcheck(
        lambda *tensors: run(*tensors)[wanted], sources, fast_mode=True
    )


def test_an_expanded_gradient():
    x, *rest = operands("gru")
    output, _ = function("gru")(x, *rest)
    expected, _, _ = composed.layer(
        x.flatten(0, 1),
        rest[0][0],
        rest[0][0][:, :0],
        LayerWeights(*rest[1:]),
        Variant("gru"),
        [],
        False,
    )
    got = torch.autograd.grad(output.sum(), rest)
    for one, other in zip(got, torch.autograd.grad(expected.sum(), rest), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_sizes", [[], [3, 3, 2, 1]])
def test_the_operators_keep_the_dispatchers_rules(kind, batch_sizes):
    count = 2 if kind == "lstm" else 1
    x, *others = operands(kind, grad=False, directions=2)
    states, weights = others[:count], others[count:]
    rows = x.flatten(0, 1)[: sum(batch_sizes) or None]
    cell = states[1] if kind == "lstm" else states[0][..., :0]
    call = (rows, states[0], cell, weights, kind, batch_sizes)
    torch.library.opcheck(torch.ops.fusewire.rnn_layer.default, (*call, True))
    torch.library.opcheck(torch.ops.fusewire.rnn_layer.default, (*call, False))
    output, _, _, saved = torch.ops.fusewire.rnn_layer(*call, True)
    backward = (output, None, None, *call[:4], output, saved, *call[4:], True, True)
    torch.library.opcheck(torch.ops.fusewire.rnn_layer_backward.default, backward)


@pytest.mark.parametrize("kind", KINDS)
def test_states_of_a_step_need_no_dimension_of_directions(kind):
    count = 2 if kind == "lstm" else 1
    x, *others = operands(kind, grad=False)
    states, weights = others[:count], others[count:]
    cell = states[1] if kind == "lstm" else states[0][..., :0]
    layout = (weights, kind, [x.shape[1]])
    results = torch.ops.fusewire.rnn_layer(x[0], states[0][0], cell[0], *layout, True)
    expected = torch.ops.fusewire.rnn_layer(x[0], states[0], cell, *layout, True)
    assert all(map(torch.equal, results, [expected[0], *(part[0] for part in expected[1:])]))
    call = (x[0], states[0][0], cell[0], *layout)
    torch.library.opcheck(torch.ops.fusewire.rnn_layer.default, (*call, True))
    torch.library.opcheck(torch.ops.fusewire.rnn_layer.default, (*call, False))
    output, hidden, _, saved = results
    for wanted in [(True, True), (False, True), (True, False)]:
        backward = (None, hidden, None, *call[:4], output, saved, *call[4:], *wanted)
        torch.library.opcheck(torch.ops.fusewire.rnn_layer_backward.default, backward)


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_without_a_graph_break(kind):
    sources = operands(kind, directions=2)
    run = function(kind, bidirectional=True, batch_first=True)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    sources[0] = sources[0].detach().transpose(0, 1).requires_grad_()

    def gradients(run):
        results = run(*sources)
        loss = sum(result.square().sum() for result in results)
        return results, torch.autograd.grad(loss, sources)

    torch.testing.assert_close(gradients(compiled), gradients(run))


@pytest.mark.parametrize("lengths", [None, [2, 4, 0]])
@pytest.mark.parametrize("kind", KINDS)
def test_what_kernels_do_not_serve_runs_pytorchs_own(kind, lengths):
    sources = operands(kind, directions=2, grad=False)
    run = function(kind, bidirectional=True, lengths=lengths)
    expected = run(*sources)
    for dtype in (torch.bfloat16, torch.float16):
        results = run(*[source.to(dtype) for source in sources])
        for result, truth in zip(results, expected, strict=True):
            assert result.dtype == dtype
            torch.testing.assert_close(result.double(), truth, atol=3e-2, rtol=3e-2)
    meta = run(*[source.to("meta") for source in sources]) if lengths is None else ()
    assert [result.shape for result in meta] == [result.shape for result in expected][: len(meta)]


def test_dropout_between_layers_is_pytorchs():
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(5, 6, num_layers=3, dropout=0.4).double()
    ours = fw.nn.LSTM(5, 6, num_layers=3, dropout=0.4).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(7, 2, 5).double()
    torch.manual_seed(1)
    first = ours(x)[0]
    torch.manual_seed(1)
    assert torch.equal(ours(x)[0], first)
    assert not torch.allclose(ours(x)[0], first)
    torch.testing.assert_close(ours.eval()(x)[0], theirs.eval()(x)[0])


def test_bad_tensors_are_told():
    x, hidden, cell, *weights = operands("lstm", grad=False)
    for error, words, call in [
        (ValueError, "input must have 2 features", lambda: fw.lstm(hidden, None, [weights])),
        (
            ValueError,
            "state must have shape",
            lambda: fw.lstm(x, (hidden, hidden[0]), [weights]),
        ),
        (TypeError, "float64 like", lambda: fw.lstm(x, (hidden.float(), cell), [weights])),
        (
            TypeError,
            "state must be .* is NoneType",
            lambda: fw.lstm(x, (None, cell), [weights]),
        ),
        (TypeError, "weight_hh of entry 0", lambda: fw.lstm(x, None, [(weights[0], None)])),
        (TypeError, "but is int32", lambda: fw.lstm(x.int(), None, [weights])),
        (ValueError, "dropout must be from 0 to 1", lambda: fw.lstm(x, None, [weights], dropout=2)),
        (
            ValueError,
            "bias_ih of entry 0 must have shape",
            lambda: fw.lstm(x, None, [[*weights[:2], weights[2][1:], weights[3]]]),
        ),
    ]:
        with pytest.raises(error, match=words):
            call()


@pytest.mark.parametrize("training", [False, True])
def test_pytorchs_layers_learn_whether_to_keep_what_gradients_need(training, monkeypatch):
    """cuDNN's have none unless they are told to train, which must drop nothing where we do not."""
    told = []

    def spy(rows, states, weights, biased, layers, dropout, trained, *rest):
        told.append((dropout, trained))
        return torch.gru(rows, states, weights, biased, layers, dropout, trained, *rest)

    monkeypatch.setitem(composed.TORCHS_LAYERS, "gru", spy)
    options = Options("gru", dropout=0.5, training=training)
    weights = [LayerWeights(torch.ones(9, 3), torch.ones(9, 3)) for _ in range(2)]
    states = [torch.zeros(2, 1, 3)]
    composed.stack(options, torch.ones(4, 3), [], states, weights)
    with torch.no_grad():
        composed.stack(options, torch.ones(4, 3), [], states, weights)
    dropped = 0.5 if training else 0.0
    assert told == [(dropped, True), (dropped, training)]
