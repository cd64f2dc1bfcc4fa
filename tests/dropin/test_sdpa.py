"""PyTorch's own attention with our kernels in its place."""

import ctypes
import itertools
import math
import sys
import threading
import time

import pytest
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import fusewire as fw

FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"
attention = functional.scaled_dot_product_attention


def is_replaced():
    return "fusewire" in torch._C._dispatch_dump(FUSED)


@pytest.fixture(autouse=True)
def _pytorchs_own():
    yield
    fw.disable()


def close(actual, expected, dtype):
    loose = {torch.float32: 2e-6, torch.float64: 1e-13, torch.bfloat16: 2e-2, torch.float16: 2e-3}
    torch.testing.assert_close(actual, expected, rtol=10 * loose[dtype], atol=loose[dtype])


def run(query, key, value, mask=None, **options):
    operands = [x.detach().clone().requires_grad_() for x in (query, key, value)]
    if mask is not None and mask.requires_grad:
        mask = mask.detach().clone().requires_grad_()
        operands.append(mask)
    output = attention(*operands[:3], mask, **options)
    upstream = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    return [output, *torch.autograd.grad(output, operands, upstream)]


def test_it_is_replaced_while_it_is_enabled_and_not_before():
    assert not is_replaced()
    fw.enable()
    fw.enable()
    assert is_replaced()
    fw.disable()
    assert not is_replaced()


def test_blocks_may_nest_and_overlap():
    first, second = fw.enabled(), fw.enabled()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert is_replaced()
    second.__exit__(None, None, None)
    assert not is_replaced()
    fw.enable()
    with fw.enabled():
        pass
    assert is_replaced()


def test_it_is_one_of_pytorchs_implementations():
    assert "fusewire" in torch.nn.attention.list_flash_attention_impls()
    torch.nn.attention.activate_flash_attention_impl("fusewire")
    assert is_replaced()
    torch.nn.attention.restore_flash_attention_impl()
    assert not is_replaced()


def layouts():
    wide = torch.randn(2, 5, 3, 6, 8)
    keys = torch.randn(2, 6, 7, 8)
    yield torch.randn(2, 6, 5, 8), keys
    yield torch.randn(2, 5, 6, 8).transpose(1, 2), torch.randn(2, 7, 6, 8).transpose(1, 2)
    yield wide[:, :, 0].transpose(1, 2), wide[:, :, 1].transpose(1, 2)
    yield torch.randn(1, 6, 5, 8).expand(2, 6, 5, 8), keys
    yield torch.randn(6, 2, 5, 8).transpose(0, 1), keys
    yield torch.randn(2, 6, 9, 8)[:, :, 3:8], keys
    yield torch.randn(2, 6, 1, 8), keys
    yield torch.randn(6, 5, 8), keys[0]
    yield torch.randn(2, 6, 5, 8), torch.randn(2, 3, 7, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_results_and_their_layouts_are_pytorchs(dtype):
    for (query, key), causal in itertools.product(layouts(), (False, True)):
        operands = [x.to(dtype) for x in (query, key, key / 2)]
        options = {"is_causal": causal, "enable_gqa": query.shape[-3] != key.shape[-3]}
        expected = run(*operands, **options)
        with fw.enabled():
            actual = run(*operands, **options)
        close(actual, expected, dtype)
        assert [x.stride() for x in actual] == [x.stride() for x in expected]


@pytest.mark.parametrize("shape", [(5, 7), (1, 7), (2, 1, 5, 7), (2, 6, 1, 7), (2, 6, 5, 7)])
@pytest.mark.parametrize("kind", ["bool", "none", "float", "learnt"])
def test_masks(shape, kind):
    query, key = torch.randn(2, 6, 5, 8), torch.randn(2, 6, 7, 8)
    mask = torch.randn(shape, requires_grad=kind == "learnt")
    if kind == "bool":
        mask = mask > 0
    elif kind == "none":  # Queries without keys.
        mask = torch.zeros(shape, dtype=torch.bool)
    expected = run(query, key, key, mask)
    with fw.enabled():
        close(run(query, key, key, mask), expected, torch.float32)


def test_what_pytorch_has_no_fused_kernel_for():
    query, key = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    strided = torch.randn(2, 3, 8, 5).transpose(2, 3)
    cases = {
        "narrow values": ((query, key, key[..., :4]), {"is_causal": True}),
        "strided": ((strided, key, key), {"scale": 0.3}),
        "grouped": ((query, key[:, :1], key[:, :1, :, :6]), {"enable_gqa": True}),
        "five dimensions": ((query[None], key[None], key[None]), {}),
    }
    for operands, options in cases.values():
        expected = run(*operands, **options)
        with fw.enabled(), Seen() as seen:
            actual = run(*operands, **options)
        assert "fusewire.attention.default" in seen.names
        close(actual, expected, torch.float32)


class Seen(torch.utils._python_dispatch.TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_dropout_keeps_the_mean():
    query = torch.randn(1, 1, 64, 8)
    value = torch.ones(1, 1, 512, 8)
    with fw.enabled():
        output = attention(query, torch.randn(1, 1, 512, 8), value, dropout_p=0.5)
    assert output.std() > 0
    assert output.mean().item() == pytest.approx(1, abs=0.1)


def test_forward_and_backward_may_lie_on_both_sides_of_the_block():
    query, key = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 5, 8)
    mask = torch.tensor([[False] * 5, [True] * 5, [False, True] * 2 + [True]])
    expected = run(query, key, key, mask)
    for inside in (True, False):
        operand = query.clone().requires_grad_()
        if inside:
            with fw.enabled():
                output = attention(operand, key, key, mask)
        else:
            output = attention(operand, key, key, mask)
        upstream = torch.linspace(-1, 1, output.numel()).reshape(output.shape)
        with fw.enabled() if not inside else torch.enable_grad():
            output.backward(upstream)
        close(operand.grad, expected[1], torch.float32)


def test_who_asks_for_the_composed_kernels_gets_them():
    x = torch.randn(1, 1, 3, 4)
    with fw.enabled(), sdpa_kernel(SDPBackend.MATH), Seen() as seen:
        attention(x, x, x)
    assert not [name for name in seen.names if "fusewire" in name or "flash" in name]


def test_errors_are_pytorchs():
    x = torch.randn(1, 1, 3, 4)
    mask = torch.ones(3, 3, dtype=torch.bool)
    wrong = [
        ((x, x[..., :2], x), {}),
        ((x, x.double(), x), {}),
        ((x, x, x, mask), {"is_causal": True}),
        ((x, x, x, mask.int()), {}),
        ((x, x, x), {"dropout_p": 1.5}),
    ]
    for operands, options in wrong:
        with pytest.raises((RuntimeError, ValueError)) as expected:
            attention(*operands, **options)
        with fw.enabled(), pytest.raises(expected.type) as actual:
            attention(*operands, **options)
        assert str(actual.value).split("\n")[0] == str(expected.value).split("\n")[0]


def test_autocast_and_inference_mode():
    x = torch.randn(2, 2, 9, 8)
    with torch.autocast("cpu", torch.bfloat16):
        expected = attention(x, x, x)
        with fw.enabled():
            actual = attention(x, x, x)
    assert actual.dtype == torch.bfloat16
    close(actual, expected, torch.bfloat16)
    with torch.inference_mode():
        expected = attention(x, x, x[..., :3])
        with fw.enabled():
            close(attention(x, x, x[..., :3]), expected, torch.float32)


@pytest.mark.parametrize("width", [8, 5])
def test_it_compiles(width):
    x = torch.randn(2, 2, 9, 8)
    expected = run(x, x, x[..., :width], is_causal=True)
    with fw.enabled():
        compiled = torch.compile(
            lambda q, k, v: attention(q, k, v, is_causal=True), fullgraph=True, backend="aot_eager"
        )
        operands = [y.clone().requires_grad_() for y in (x, x, x[..., :width])]
        output = compiled(*operands)
        upstream = torch.linspace(-1, 1, output.numel()).reshape(output.shape)
        actual = [output, *torch.autograd.grad(output, operands, upstream)]
    close(actual, expected, torch.float32)


def test_many_threads_may_enable_it():
    x = torch.randn(1, 2, 16, 8)
    expected = attention(x, x, x)
    wrong = []

    def work():
        for _ in range(50):
            with fw.enabled():
                if not torch.allclose(attention(x, x, x), expected, atol=1e-6):
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not is_replaced()


def test_threads_may_call_while_another_one_switches():
    x = torch.randn(1, 2, 33, 8)
    expected, wrong, ended = attention(x, x, x), [], threading.Event()

    def call():
        for _ in range(1000):
            if not torch.allclose(attention(x, x, x), expected, atol=1e-5):
                wrong.append(1)
        ended.set()

    thread = threading.Thread(target=call)
    thread.start()
    while not ended.is_set():
        with fw.enabled():
            pass
    thread.join()
    assert not wrong


def overwrite_what_is_free():
    library = ctypes.PyDLL(None)  # Keeps the interpreter.
    library.malloc.restype = ctypes.c_void_p
    blocks = [(library.malloc(size), size) for size in range(16, 257, 16) for _ in range(64)]
    for block, size in blocks:
        library.memset(ctypes.c_void_p(block), 0xFF, ctypes.c_size_t(size))
    for block, _ in blocks:
        library.free(ctypes.c_void_p(block))


def test_it_may_end_while_a_thread_waits_to_enter_it():
    x = torch.randn(1, 2, 9, 8)
    value = x[..., :5]
    expected = attention(x, x, value)
    calling, results, interval = threading.Event(), [], sys.getswitchinterval()

    def work():
        calling.set()
        results.append(attention(x, x, value))

    fw.enable()
    thread = threading.Thread(target=work)
    sys.setswitchinterval(100)  # From now on a thread gives the interpreter away by itself only.
    try:
        thread.start()
        calling.wait()
        until = time.perf_counter() + 0.1
        while time.perf_counter() < until:
            pass  # The call stands before our kernel now, and waits for this thread.
        fw.disable()
        overwrite_what_is_free()
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    close(results[0], expected, torch.float32)


def test_gradients_are_never_without_a_kernel(monkeypatch):
    """While one thread registers kernels one by one, another one may call."""
    x = torch.randn(1, 2, 9, 8, requires_grad=True)
    register, destroy = torch.library.Library.impl, torch.library.Library._destroy
    seen = []

    def then_called(change):
        def changed(*arguments, **options):
            change(*arguments, **options)
            seen.append(torch.autograd.grad(attention(x, x, x[..., :5]).sum(), x)[0])

        return changed

    expected = torch.autograd.grad(attention(x, x, x[..., :5]).sum(), x)[0]
    monkeypatch.setattr(torch.library.Library, "impl", then_called(register))
    monkeypatch.setattr(torch.library.Library, "_destroy", then_called(destroy))
    with fw.enabled():
        pass
    assert len(seen) > 2
    for each in seen:
        close(each, expected, torch.float32)


@pytest.mark.parametrize("hidden", [-1e9, -3e30, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_queries_that_see_only_the_lowest_number(dtype, hidden):
    """As in rows of padding; their logarithm, times log2(e), is rounded coarsely or infinite."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(3, 1, 2, 5, 8, generator=generator).to(dtype)
    mask = torch.zeros(5, 5, dtype=dtype)
    mask[1] = max(hidden, torch.finfo(dtype).min)
    upstream = torch.ones(1, 2, 5, 8, dtype=dtype)
    upstream[:, :, 1] = 0  # Nobody reads the output of padding.

    def outcome(attention, *operands):
        leaves = [operand.detach().requires_grad_() for operand in operands]
        output = attention(*leaves, mask.to(leaves[0].dtype))
        gradients = torch.autograd.grad(output, leaves, upstream.to(output.dtype))
        return [output.double() * upstream, *(gradient.double() for gradient in gradients)]

    composed = torch.nn.functional.scaled_dot_product_attention
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = outcome(composed, *numbers.double().unbind())
    with fw.enabled():
        replaced = outcome(composed, *numbers.unbind())
    for actual in (replaced, outcome(fw.scaled_dot_product_attention, *numbers.unbind())):
        tolerance = 16 * torch.finfo(dtype).eps
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
