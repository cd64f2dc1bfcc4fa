"""What every operator is to PyTorch: autocast, transforms, compilation, copies, processes."""

import copy
import io
import subprocess
import sys
import textwrap

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, vmap

import fusewire as fw


class Everything(torch.nn.Module):
    """One module of each kind."""

    def __init__(self):
        super().__init__()
        self.lstm = fw.nn.LSTM(5, 6)
        self.gru = fw.nn.GRU(6, 6, bidirectional=True)
        self.attention = fw.nn.MultiheadAttention(12, 2)
        self.head = fw.nn.Linear(12, 3, activation="silu")

    def forward(self, x):
        x = self.gru(self.lstm(x)[0])[0]
        return self.head(self.attention(x, x, x, need_weights=False)[0])


def test_autocast_gives_the_types_that_pytorchs_layers_have():
    x = torch.randn(4, 2, 6)
    heads = torch.randn(1, 2, 4, 6)
    pairs = [
        (fw.scaled_dot_product_attention, torch.nn.functional.scaled_dot_product_attention),
        (fw.nn.Linear(6, 3), torch.nn.Linear(6, 3)),
        (fw.nn.GRU(6, 3), torch.nn.GRU(6, 3)),
    ]
    for ours, theirs in pairs:
        operands = [heads] * 3 if ours is fw.scaled_dot_product_attention else [x]
        with torch.autocast("cpu", torch.bfloat16):
            actual, expected = ours(*operands), theirs(*operands)
        if isinstance(actual, tuple):
            actual, expected = actual[0], expected[0]
        assert actual.dtype == expected.dtype
    with torch.autocast("cpu", torch.bfloat16):
        # PyTorch's LSTM would give that too, but cannot be asked on CPUs without products of pairs.
        assert fw.nn.LSTM(6, 3)(x)[0].dtype == torch.bfloat16
        assert fw.linear(x.double(), torch.ones(3, 6).double()).dtype == torch.float64


def test_gradients_flow_through_autocast():
    model, x = Everything(), torch.randn(4, 2, 5)
    expected = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x).float().sum()
    actual = torch.autograd.grad(loss, list(model.parameters()))
    for mine, exact in zip(actual, expected, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, exact, rtol=0.1, atol=0.05 * exact.abs().max().item())


def test_transforms_of_functions():
    model, x = Everything(), torch.randn(3, 4, 2, 5)
    parameters = dict(model.named_parameters())

    def loss(parameters, x):
        return functional_call(model, parameters, (x,)).square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for row in range(3):
        exact = torch.autograd.grad(loss(parameters, x[row]), list(parameters.values()))
        for mine, theirs in zip(each.values(), exact, strict=True):
            torch.testing.assert_close(mine[row], theirs, rtol=1e-4, atol=1e-5)
    q = torch.randn(2, 3, 4)
    jacobian = jacrev(lambda q: fw.scaled_dot_product_attention(q, q, q))(q)
    assert jacobian.shape == (2, 3, 4, 2, 3, 4)


def test_rows_of_a_transform_draw_as_it_says():
    ones = torch.ones(3, 2, 5, 8, dtype=torch.float64)

    def attend(row):
        return fw.scaled_dot_product_attention(row, row, row, dropout_p=0.5)

    torch.manual_seed(0)
    each = vmap(attend, randomness="different")(ones)
    assert not torch.equal(each[0], each[1])
    alike = vmap(attend, randomness="same")(ones)
    assert torch.equal(alike[0], alike[1])
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(attend)(ones)


# PyTorch's own forward-mode formulas are scripted still.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_tangents_are_carried_forward():
    model, x, direction = Everything(), torch.randn(4, 2, 5), torch.randn(4, 2, 5)
    with torch.no_grad(), forward_ad.dual_level():
        dual = model(forward_ad.make_dual(x, direction))
        _, tangent = forward_ad.unpack_dual(dual)
        query = forward_ad.make_dual(x, direction)
        _, attended = forward_ad.unpack_dual(fw.scaled_dot_product_attention(query, x, x))
    _, expected = torch.func.jvp(model, (x,), (direction,))
    torch.testing.assert_close(tangent, expected)
    _, expected = torch.func.jvp(
        lambda q: fw.scaled_dot_product_attention(q, x, x), (x,), (direction,)
    )
    torch.testing.assert_close(attended, expected)


def test_a_model_is_exported():
    model, x = Everything().eval(), torch.randn(4, 2, 5)
    exported = torch.export.export(model, (x,))
    names = {str(node.target) for node in exported.graph.nodes}
    assert {
        "fusewire.attention.default",
        "fusewire.linear.default",
        "fusewire.rnn_layer.default",
    } <= names
    assert torch.equal(exported.module()(x), model(x))


def test_copies_and_files():
    model, x = Everything(), torch.randn(4, 2, 5)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), model(x))


REPLICA = """
    import copy, sys, torch, fusewire as fw
    rank, store = int(sys.argv[1]), torch.distributed.FileStore(sys.argv[2], 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plain = torch.nn.Sequential(
        torch.nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0), torch.nn.GRU(6, 4)
    )
    x, model = torch.randn(2, 5, 3, 6), copy.deepcopy(plain)
    fw.fuse(model)
    replica = torch.nn.parallel.DistributedDataParallel(model)
    replica(x[rank])[0].square().mean().backward()
    sum(plain(each)[0].square().mean() for each in x).div(2).backward()
    for ours, exact in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, exact.grad, rtol=1e-4, atol=1e-6)
    torch.distributed.destroy_process_group()
"""


def test_replicas_share_their_gradients(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(REPLICA)]
    replicas = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    for replica in replicas:
        _, said = replica.communicate()
        assert replica.returncode == 0, said


def test_an_interrupt_ends_a_loop_of_kernels():
    code = """
        import _thread, signal, threading, torch, fusewire as fw
        # A shell that starts the tests in the background has them ignore interrupts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        x = torch.randn(256, 256)
        fw.linear(x, x)
        threading.Timer(0.2, _thread.interrupt_main).start()
        try:
            while True:
                fw.linear(x, x)
        except KeyboardInterrupt:
            print("stopped")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "stopped", done.stderr


def test_a_model_is_compiled_in_one_piece():
    model, x = Everything(), torch.randn(4, 2, 5)
    expected = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    actual = torch.autograd.grad(compiled(x).sum(), list(model.parameters()))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_one_tensor_in_several_places_is_compiled():
    x = torch.randn(2, 3, 5, 8, requires_grad=True)

    def attend(x):
        return fw.scaled_dot_product_attention(x, x, x, is_causal=True)

    tied = fw.nn.GRU(6, 6)
    tied.weight_ih_l0 = tied.weight_hh_l0
    for function, operand in [(attend, x), (lambda x: tied(x)[0], torch.randn(4, 2, 6))]:
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(operand), function(operand))
    exact = torch.autograd.grad(attend(x).square().sum(), x)
    actual = torch.autograd.grad(torch.compile(attend, backend="aot_eager")(x).square().sum(), x)
    torch.testing.assert_close(actual, exact)
