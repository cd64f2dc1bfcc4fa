"""`fw.nn`'s recurrent modules beside `torch.nn`'s: outputs, gradients, errors against float64."""

import copy

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

import fusewire as fw

LAYERS = [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("GRU", {})]
OPTIONS = [
    {},
    {"num_layers": 2, "bias": False},
    {"bidirectional": True, "batch_first": True},
    {"num_layers": 3, "bidirectional": True},
]


def pair(name, *sizes, dtype=torch.float64, **options):
    """PyTorch's module and ours with the same parameters."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*sizes, **options, dtype=dtype)
    ours = getattr(fw.nn, name)(*sizes, **options, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def flatten(results):
    """All tensors of nested results."""
    if isinstance(results, torch.nn.utils.rnn.PackedSequence):
        return [results.data]
    if isinstance(results, torch.Tensor):
        return [results]
    return [tensor for result in results for tensor in flatten(result)]


def results_and_gradients(module, input, state, sources):
    results = flatten(module(input) if state is None else module(input, state))
    generator = torch.Generator().manual_seed(1)
    loss = sum((r * torch.randn(r.shape, generator=generator).to(r)).sum() for r in results)
    return results, torch.autograd.grad(loss, [*sources, *module.parameters()])


def states(name, *shape, dtype=torch.float64):
    hidden, cell = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(2))
    return ((hidden, cell), [hidden, cell]) if "LSTM" in name else (hidden, [hidden])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("name", "variant"), LAYERS, ids=str)
def test_it_is_torchs_layer(name, variant, options):
    theirs, ours = pair(name, 5, 7, **variant, **options)
    depth = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    batch = 4 if options.get("batch_first") else 3
    x = torch.randn(4, 3 if batch == 3 else 6, 5).double().requires_grad_()
    state, sources = states(name, depth, batch, 7)
    for initial, grads in [(state, [x, *sources]), (None, [x])]:
        expected = results_and_gradients(theirs, x, initial, grads)
        torch.testing.assert_close(results_and_gradients(ours, x, initial, grads), expected)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize(("name", "variant"), LAYERS, ids=str)
def test_packed_sequences(name, variant, enforce_sorted, bidirectional):
    theirs, ours = pair(name, 5, 7, num_layers=2, bidirectional=bidirectional, **variant)
    lengths = [6, 4, 4, 1] if enforce_sorted else [4, 1, 6, 4]
    x = torch.randn(6, 4, 5).double().requires_grad_()
    state, sources = states(name, 4 if bidirectional else 2, 4, 7)
    for initial, grads in [(state, [x, *sources]), (None, [x])]:
        both = [
            results_and_gradients(
                module,
                pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted),
                initial,
                grads,
            )
            for module in (ours, theirs)
        ]
        torch.testing.assert_close(*both)


@pytest.mark.parametrize("layout", ["times", "batch_first", "packed", "single"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("name", "variant"), LAYERS, ids=str)
def test_without_gradients(name, variant, options, layout):
    options = {**options, "batch_first": layout == "batch_first"}
    theirs, ours = pair(name, 5, 7, **variant, **options)
    depth = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    x = torch.randn(6, 4, 5).double()
    if layout == "packed":
        x = pack_padded_sequence(x, [4, 1, 6, 4], enforce_sorted=False)
    elif layout == "single":
        x = x[:, 0]
    batch = {"batch_first": (6,), "single": ()}.get(layout, (4,))
    state, _ = states(name, depth, *batch, 7)
    with torch.no_grad():
        for initial in (None, state):
            results = [flatten(module(x, initial)) for module in (ours, theirs)]
            torch.testing.assert_close(*results)


@pytest.mark.parametrize(("name", "variant"), LAYERS, ids=str)
def test_changed_weights_are_noticed(name, variant):
    """Packed weights are kept, but no way of changing a parameter leaves results as they were."""
    theirs, ours = pair(name, 5, 7, dtype=torch.float32, **variant)
    x = torch.randn(20, 3, 5)

    def by_optimizer():
        ours(x)[0].sum().backward()
        torch.optim.SGD(ours.parameters(), 0.1).step()

    def by_data():
        ours.weight_hh_l0.data.mul_(-1)

    def by_array():
        ours.weight_ih_l0.detach().numpy()[3, 2] += 1

    def by_replacement():
        ours.weight_hh_l0 = torch.nn.Parameter(ours.weight_hh_l0.detach() * 2)

    for change in (lambda: None, by_optimizer, by_data, by_array, by_replacement):
        change()
        theirs.load_state_dict(ours.state_dict())
        for module in (ours, ours, theirs):
            module.zero_grad()
        results, grads = results_and_gradients(ours, x, None, [])
        expected = results_and_gradients(theirs, x, None, [])
        torch.testing.assert_close((results, grads), expected, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(flatten(ours(x)), expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("name", "variant"), [(f"{name}Cell", variant) for name, variant in LAYERS], ids=str
)
def test_it_is_torchs_cell(name, variant, bias):
    theirs, ours = pair(name, 5, 7, bias=bias, **variant)
    for shape in [(3,), ()]:
        x = torch.randn(*shape, 5).double().requires_grad_()
        state, sources = states(name, *shape, 7)
        for initial, grads in [(state, [x, *sources]), (None, [x])]:
            expected = results_and_gradients(theirs, x, initial, grads)
            torch.testing.assert_close(results_and_gradients(ours, x, initial, grads), expected)


@pytest.mark.parametrize(("name", "variant"), LAYERS, ids=str)
def test_gradients_of_a_cell_are_differentiated_again(name, variant):
    cell = getattr(fw.nn, f"{name}Cell")(2, 3, **variant, dtype=torch.float64)
    x = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    _, sources = states(name, 2, 3)

    def step(x, *states):
        return cell(x, states if len(states) > 1 else states[0])

    torch.autograd.gradcheck(step, (x, *sources))
    torch.autograd.gradgradcheck(step, (x, *sources))


@pytest.mark.parametrize(("name", "variant"), LAYERS, ids=str)
@pytest.mark.parametrize("sizes", [(20, 16, 40, 64), (50, 1, 30, 33), (3, 70, 100, 128)])
def test_the_error_is_no_larger_than_torchs(name, variant, sizes):
    seq_len, batch, input_size, hidden_size = sizes
    theirs, ours = pair(name, input_size, hidden_size, dtype=torch.float32, **variant)
    x = torch.randn(seq_len, batch, input_size, requires_grad=True)
    truth = copy.deepcopy(theirs).double()
    wide = x.detach().double().requires_grad_()
    expected = flatten(results_and_gradients(truth, wide, None, [wide]))
    errors = []
    for module in (theirs, ours):
        got = flatten(results_and_gradients(module, x, None, [x]))
        errors.append(
            [
                ((g.double() - e).norm() / e.norm()).item()
                for g, e in zip(got, expected, strict=True)
            ]
        )
    for torchs, own in zip(*errors, strict=True):
        assert own <= 1.2 * torchs + 1e-7


def test_it_is_copied_and_learns():
    torch.manual_seed(0)
    layer = fw.nn.GRU(3, 8)
    x, target = torch.randn(6, 16, 3), torch.randn(16, 8).tanh() * 0.5
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (layer(x)[1][0] - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.01
    assert torch.equal(copy.deepcopy(layer)(x)[0], layer(x)[0])


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {"num_layers": 2, "bidirectional": True, **variant}) for name, variant in LAYERS]
    + [(f"{name}Cell", variant) for name, variant in LAYERS],
    ids=str,
)
def test_it_compiles_without_a_graph_break(name, options):
    module = getattr(fw.nn, name)(5, 7, **options, dtype=torch.float64)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = torch.randn((3, 5) if "Cell" in name else (4, 3, 5)).double().requires_grad_()
    expected = results_and_gradients(module, x, None, [x])
    results = flatten(compiled(x))
    generator = torch.Generator().manual_seed(1)
    loss = sum((r * torch.randn(r.shape, generator=generator).to(r)).sum() for r in results)
    gradients = torch.autograd.grad(loss, [x, *module.parameters()])
    torch.testing.assert_close((results, gradients), expected)


@pytest.mark.parametrize(("name", "variant"), LAYERS, ids=str)
def test_it_has_what_torchs_has(name, variant):
    places = [variant.get("nonlinearity", "tanh")] if name == "RNN" else []
    arguments = (5, 7, 2, *places, False, True, 0.5, True)
    theirs, ours = getattr(torch.nn, name)(*arguments), getattr(fw.nn, name)(*arguments)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours._flat_weights_names == theirs._flat_weights_names
    assert [len(weights) for weights in ours.all_weights] == [2, 2, 2, 2]
    assert all(a is b for a, b in zip(ours._flat_weights, ours.parameters(), strict=True))
    for constant in torch.nn.RNNBase.__constants__:
        assert getattr(ours, constant) == getattr(theirs, constant)
    assert repr(ours) == repr(theirs)
    ours.flatten_parameters()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(
        copy.deepcopy(ours).half().float().state_dict(), ours.half().float().state_dict()
    )
    torch.nn.utils.parametrizations.weight_norm(ours.float(), "weight_hh_l0")
    assert ours.eval()(torch.zeros(2, 3, 5).swapaxes(0, 1))[0].shape == (3, 2, 14)


def test_bad_arguments_are_told():
    for words, call in [
        ("hidden_size must be greater than zero", lambda: fw.nn.GRU(5, 0)),
        ("input_size must be greater than zero", lambda: fw.nn.MinGRU(0, 5)),
        ("proj_size has to be smaller", lambda: fw.nn.LSTM(5, 7, proj_size=7)),
        ("proj_size is for LSTM only", lambda: fw.nn.GRU(5, 7, proj_size=3)),
        (r"dropout should be a number in range \[0, 1\]", lambda: fw.nn.GRU(5, 7, 2, dropout=2)),
        ("'tanh' or 'relu'", lambda: fw.nn.RNN(5, 7, nonlinearity="sigmoid")),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.warns(UserWarning, match="non-zero dropout expects num_layers greater than 1"):
        fw.nn.GRU(5, 7, dropout=0.5)


def test_bad_input_is_told_in_pytorchs_words():
    layer = fw.nn.LSTM(5, 7)
    with pytest.raises(RuntimeError, match="Expected 5, got 6"):
        layer(torch.zeros(2, 3, 6))
    with pytest.raises(RuntimeError, match=r"Expected hidden\[1\] size \(1, 3, 7\)"):
        layer(torch.zeros(2, 3, 5), (torch.zeros(1, 3, 7), torch.zeros(1, 2, 7)))
    with pytest.raises(ValueError, match=r"state must have shape \(1, 2, 7\)"):
        layer(pack_sequence([torch.zeros(2, 5)] * 2), (torch.zeros(1, 3, 7),) * 2)
    with pytest.raises(ValueError, match="1D or 2D"):
        fw.nn.GRUCell(5, 7)(torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match="must have 5 features, but has 6"):
        fw.nn.MinGRU(5, 7)(torch.zeros(2, 3, 6))


@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize("name", ["RNNCell", "GRUCell", "LSTMCell"])
def test_bad_input_of_a_step_is_told_in_pytorchs_words(name, with_gradients):
    """Also of a state with two rows for each direction, which would look like a layer's."""
    x, state = torch.zeros(2, 5), torch.zeros(2, 7)
    theirs, ours = getattr(torch.nn, name)(5, 7), getattr(fw.nn, name)(5, 7)
    shapes = [(2, 6), (3, 7), (1, 7), (7,), (2, 2, 7), ()]
    states = [torch.zeros(shape) for shape in shapes] + [state.double()]
    calls = [(x, other) for other in states]
    calls += [(x.double(), state), (x.long(), state), (x[:, :4], state), (x[None], state)]
    if name == "LSTMCell":
        calls = [(given, (other, other)) for given, other in calls]
        calls += [(x, (state,) * 3), (x, (state, state[:, :6]))]
    for call in calls:
        with torch.set_grad_enabled(with_gradients):
            with pytest.raises((RuntimeError, TypeError, ValueError)) as expected:
                theirs(*call)
            with pytest.raises(expected.type) as actual:
                ours(*call)
        assert str(actual.value).split("\n")[0] == str(expected.value).split("\n")[0]


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_a_batch_of_gradients_at_once(name):
    ours, shape = getattr(fw.nn, name)(5, 7), (3, 5) if name.endswith("Cell") else (4, 3, 5)
    result = ours(torch.randn(shape))
    output = result if torch.is_tensor(result) else result[0]
    upstream, weights = torch.randn(2, *output.shape), list(ours.parameters())
    together = torch.autograd.grad(
        output, weights, upstream, retain_graph=True, is_grads_batched=True
    )
    for index, one in enumerate(upstream):
        alone = torch.autograd.grad(output, weights, one, retain_graph=True)
        for actual, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(actual[index], expected)
