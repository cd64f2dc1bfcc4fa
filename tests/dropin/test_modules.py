"""Modules of existing models, changed in place."""

import copy
import io
import math

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize, weight_norm
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._pytree import tree_leaves, tree_map

import fusewire as fw
from fusewire.dropin import modules
from fusewire.dropin.classes import CLASSES, LINEAR_CLASSES


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(6, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = torch.nn.GRU(16, 8)
        self.rnn = torch.nn.RNN(8, 8, nonlinearity="relu")
        self.cells = torch.nn.ModuleList(
            [torch.nn.RNNCell(8, 8), torch.nn.GRUCell(8, 8), torch.nn.LSTMCell(8, 8)]
        )
        self.attention = torch.nn.MultiheadAttention(8, 2)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, x):
        x = self.lstm(x)[0]
        x = self.rnn(self.gru(x)[0])[0]
        step = self.cells[1](self.cells[0](x[0]))
        step = self.cells[2](step)[0]
        return self.head(self.attention(x, x, x, need_weights=False)[0] + step)


def gradients(model, x):
    x = x.clone().requires_grad_()
    output = model(x)
    upstream = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    return [output, *torch.autograd.grad(output, [x, *model.parameters()], upstream)]


def test_a_model_computes_the_same_before_and_after():
    model, x = Model(), torch.randn(4, 5, 6)
    expected, parameters = gradients(model, x), list(model.parameters())
    keys, modules = list(model.state_dict()), list(model.modules())
    report = fw.fuse(model, linear=False)
    assert list(report.changed) == [
        "lstm",
        "gru",
        "rnn",
        "cells.0",
        "cells.1",
        "cells.2",
        "attention",
    ]
    assert not report.left_alone
    assert isinstance(model.lstm, fw.nn.LSTM)
    torch.testing.assert_close(gradients(model, x), expected, rtol=1e-4, atol=2e-6)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert list(model.state_dict()) == keys
    assert not fw.fuse(model, linear=False).changed
    assert list(fw.fuse(model, undo=True).changed) == list(report.changed)
    assert type(model.lstm) is torch.nn.LSTM
    torch.testing.assert_close(gradients(model, x), expected, rtol=1e-6, atol=1e-7)


def test_what_is_done_to_a_fused_model_survives_its_undoing():
    model, x = Model(), torch.randn(4, 5, 6, dtype=torch.float64)
    fw.fuse(model)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    expected = gradients(model, x)
    fw.fuse(model, undo=True)
    torch.testing.assert_close(gradients(model, x), expected, rtol=1e-10, atol=1e-12)


def test_copies_files_and_states():
    model, x = Model(), torch.randn(4, 5, 6)
    fw.fuse(model)
    expected = model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), expected)
        fw.fuse(other, undo=True)
        torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=2e-6)
    plain = Model()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain(x), expected, rtol=1e-4, atol=2e-6)
    model.load_state_dict(plain.state_dict())


def test_hooks_modes_and_tied_weights():
    model, x = Model(), torch.randn(4, 5, 6)
    model.gru.weight_hh_l0 = torch.nn.Parameter(model.gru.weight_hh_l0)
    model.rnn.weight_hh_l0 = model.rnn.weight_ih_l0
    model.eval()
    model.gru.bias_hh_l0.requires_grad_(False)
    seen = []
    model.gru.register_forward_hook(lambda *_: seen.append("gru"))
    expected = model(x)
    fw.fuse(model)
    assert model.rnn.weight_hh_l0 is model.rnn.weight_ih_l0
    assert not model.gru.training
    assert not model.gru.bias_hh_l0.requires_grad
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=2e-6)
    assert seen == ["gru", "gru"]


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_parametrizations(norm):
    model, x = Model(), torch.randn(4, 5, 6)
    norm(model.gru, "weight_hh_l0")
    norm(model.cells[1], "weight_ih")
    fw.fuse(model)
    with torch.no_grad():
        for parameter in model.gru.parameters():
            parameter.mul_(1.5)  # PyTorch's layers do not see this before they are called again.
    before = gradients(model, x)
    fw.fuse(model, undo=True)
    if norm is weight_norm:
        torch.testing.assert_close(gradients(model, x), before, rtol=1e-4, atol=2e-6)
    else:
        fw.fuse(model)
        parametrize.remove_parametrizations(model.gru, "weight_hh_l0")
        assert type(model.gru) is fw.nn.GRU
        torch.testing.assert_close(model(x), before[0], rtol=1e-4, atol=2e-6)


def test_weights_that_are_put_in_place_by_hand():
    layer, x = torch.nn.LSTM(6, 8), torch.randn(5, 6)
    raw = torch.nn.Parameter(layer.weight_hh_l0.detach())
    fw.fuse(layer)
    del layer.weight_hh_l0
    layer.weight_hh_l0 = raw * 0.5
    layer._flat_weights = [getattr(layer, name) for name in layer._flat_weights_names]
    layer(x)[0].sum().backward()
    assert raw.grad.abs().sum() > 0
    halved = [
        weight * 2 if weight is layer.weight_hh_l0 else weight for weight in layer.all_weights[0]
    ]
    layer._flat_weights = halved
    assert layer.weight_hh_l0 is halved[1]


def test_what_is_no_model_is_told():
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, but is list"):
        fw.fuse([torch.nn.LSTM(2, 2)])
    with pytest.raises(TypeError, match=r"linear must be True, False or None.* 'yes' and False"):
        fw.fuse(torch.nn.Linear(2, 2), linear="yes")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model, x = Model().to(dtype), torch.randn(4, 5, 6, dtype=dtype)
    expected = model(x)
    fw.fuse(model)
    actual = model(x)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual, expected, rtol=5e-2, atol=5e-2)


def test_packed_sequences():
    model = torch.nn.LSTM(3, 4, batch_first=True)
    packed = pack_padded_sequence(
        torch.randn(3, 5, 3), [2, 5, 4], batch_first=True, enforce_sorted=False
    )
    expected = model(packed)
    assert list(fw.fuse(model).changed) == [""]
    actual = model(packed)
    torch.testing.assert_close(actual[0].data, expected[0].data, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(actual[1], expected[1], rtol=1e-5, atol=1e-6)


class Own(torch.nn.GRU):
    pass


def test_what_is_left_alone_and_why():
    model = torch.nn.ModuleDict(
        {
            "own": Own(2, 3),
            "replaced": torch.nn.GRU(2, 3),
            "ours": fw.nn.LSTM(2, 3),
            "plain": torch.nn.Linear(2, 3),
        }
    )
    model["replaced"].forward = model["replaced"].forward
    report = fw.fuse(model, linear=False)
    assert not report.changed
    assert report.left_alone == {
        "own": "Own is a class of its own, derived from GRU",
        "replaced": "its forward was replaced",
    }
    assert "own left alone: Own is a class of its own" in str(report)


@pytest.mark.filterwarnings("ignore:.*nested tensors")
def test_transformers_call_their_attention_in_inference():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 2).eval()
    x, padding = torch.randn(3, 5, 8), torch.arange(5) >= torch.tensor([5, 2, 3])[:, None]
    with torch.no_grad():
        expected = encoder(x), encoder(x, src_key_padding_mask=padding)
        fw.fuse(encoder)
        actual = encoder(x), encoder(x, src_key_padding_mask=padding)
        fw.fuse(encoder, undo=True)
        again = encoder(x)
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(actual[1][~padding], expected[1][~padding], rtol=1e-5, atol=2e-6)
    assert torch.equal(again, expected[0])


@pytest.mark.parametrize("rows", [8, 80], ids=["few", "many"])
def test_linear_layers_are_changed_where_that_is_asked_for(rows):
    model, x = Model(), torch.randn(4, rows // 4, 6)
    expected = gradients(model, x)
    assert "head" not in fw.fuse(model, linear=False).changed
    report = fw.fuse(model, linear=True)
    inner = {"attention.out_proj": "NonDynamicallyQuantizableLinear"}
    assert report.changed == inner | {"head": "Linear"}
    assert not report.left_alone
    torch.testing.assert_close(gradients(model, x), expected, rtol=1e-4, atol=2e-6)
    model.double()
    gradients(model, x.double())
    model.bfloat16()
    assert model(x.bfloat16()).dtype == torch.bfloat16
    fw.fuse(model, undo=True)
    assert type(model.head) is torch.nn.Linear


@pytest.mark.parametrize("gain", [False, True])
def test_linear_layers_are_changed_where_that_pays(monkeypatch, gain):
    monkeypatch.setattr(modules, "rows_that_gain", lambda: 0 if gain else math.inf)
    assert ("head" in fw.fuse(Model()).changed) is gain


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell"])
@pytest.mark.filterwarnings("ignore:.*quantiz")
def test_quantised_modules_are_left_alone(kind):
    module = getattr(torch.ao.nn.quantized.dynamic, kind)(2, 3)
    report = fw.fuse(torch.nn.Sequential(module), linear=False)
    assert not report.changed
    assert report.left_alone == {"0": "it is quantised, or made to become so"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_autocast_gives_the_types_that_it_gives_pytorchs_modules(kind, dtype):
    theirs, x = getattr(torch.nn, kind)(4, 8), torch.randn(3, 4)
    ours = copy.deepcopy(theirs)
    fw.fuse(ours)
    for training in (True, False):
        with torch.set_grad_enabled(training), torch.autocast("cpu", dtype):
            actual = ours(x)
            # PyTorch's LSTM has no kernel of 16 bits on some CPUs; autocast would ask for them.
            with torch.autocast("cpu", dtype, enabled=kind != "LSTM"):
                expected = theirs(x)
        if kind == "LSTM":
            expected = tree_map(lambda tensor: tensor.to(dtype), expected)
        for wanted, got in zip(tree_leaves(expected), tree_leaves(actual), strict=True):
            assert got.dtype == wanted.dtype
            torch.testing.assert_close(got, wanted, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_traces_serve_other_lengths(gradients):
    """`torch.jit.trace` records PyTorch's own operators, not the sizes of its example."""
    model = Model()
    fw.fuse(model, linear=True)
    with torch.set_grad_enabled(gradients):
        traced = torch.jit.trace(model, torch.randn(2, 5, 6))
        for shape in ((2, 5, 6), (3, 9, 6)):
            x = torch.randn(shape)
            torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_traces_of_layers_with_states(kind, packed):
    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            options = {"proj_size": 2} if kind == "LSTM" else {}
            self.layer = getattr(torch.nn, kind)(6, 4, 2, bidirectional=True, **options)

        def forward(self, x, lengths, *states):
            given = tuple(states) if kind == "LSTM" else states[0]
            if not packed:
                return self.layer(x, given)
            rows = pack_padded_sequence(x, lengths, enforce_sorted=False)
            output, finals = self.layer(rows, given)
            return output.data, finals

    def inputs(length, batch):
        sizes = [2, 4] if kind == "LSTM" else [4]
        lengths = torch.arange(batch) % length + 1
        states = [torch.randn(4, batch, size) for size in sizes]
        return torch.randn(length, batch, 6), lengths, *states

    model = Tagger()
    fw.fuse(model)
    traced = torch.jit.trace(model, inputs(5, 2))
    x = inputs(7, 3)
    torch.testing.assert_close(traced(*x), model(*x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_traces_refuse_what_torch_lacks():
    layer = fw.nn.GRU(6, 4, layer_norm=True)
    with pytest.raises(RuntimeError, match="cannot record GRU"):
        torch.jit.trace(layer, torch.randn(5, 2, 6))


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("kind", list(CLASSES | LINEAR_CLASSES), ids=lambda kind: kind.__name__)
def test_scripts_are_refused_in_one_line(kind):
    layer = kind(6, 2)
    model = torch.nn.ModuleList([layer])
    torch.jit.script(model)
    fw.fuse(model, linear=True)
    name = type(layer).__name__
    with pytest.raises(RuntimeError, match=rf"^torch\.jit\.script cannot compile .* {name}; .*$"):
        torch.jit.script(model)
    fw.fuse(model, undo=True)
    torch.jit.script(model)


@pytest.mark.parametrize("cell", ["RNNCell", "GRUCell", "LSTMCell"])
def test_graphs_of_functions_keep_modules_whole(cell):
    """`torch.fx`, on which extractors of features are built, records what it did before."""

    class Everything(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(6, 6)
            self.rnn, self.gru = torch.nn.RNN(6, 6), torch.nn.GRU(6, 6)
            self.lstm = torch.nn.LSTM(6, 6)
            self.cell = getattr(torch.nn, cell)(6, 6)
            self.attention = torch.nn.MultiheadAttention(6, 2)
            self.encoder = torch.nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0)

        def forward(self, x):
            x, hidden = self.rnn(self.linear(x))
            x, _ = self.gru(x, hidden)
            x, _ = self.lstm(x)
            x, _ = self.attention(x, x, value=x, need_weights=False)
            x = self.encoder(x)
            step = self.cell(x[-1])
            return x, step if cell != "LSTMCell" else step[0]

    model = Everything()
    plain = torch.fx.symbolic_trace(model)
    expected = {length: model(torch.ones(length, 2, 6)) for length in (3, 7)}
    fw.fuse(model, linear=True)
    graph = torch.fx.symbolic_trace(model)
    targets = [
        [node.target for node in traced.graph.nodes if node.op == "call_module"]
        for traced in (plain, graph)
    ]
    assert targets[0] == targets[1]
    assert len(targets[0]) == 7
    for length, outputs in expected.items():
        torch.testing.assert_close(graph(torch.ones(length, 2, 6)), outputs, rtol=1e-4, atol=1e-5)


def test_graphs_of_functions_keep_what_is_alone_in_the_package():
    model = torch.nn.Sequential(fw.nn.Linear(6, 4, activation="gelu"), fw.nn.MinGRU(4, 4))
    graph = torch.fx.symbolic_trace(model)
    x = torch.randn(5, 2, 6)
    torch.testing.assert_close(graph(x), model(x))
