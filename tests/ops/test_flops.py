"""What PyTorch's counter of operations says of ours: what it says of its own."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import fusewire as fw


def counted(call, *operands):
    """Operations of a call, and of the gradients of all its operands that want one."""
    with FlopCounterMode(display=False) as forward:
        output = call(*operands)
    output = output[0] if isinstance(output, tuple) else output
    backward = FlopCounterMode(display=False)
    if output.requires_grad:
        with backward:
            output.backward(torch.ones_like(output))
    return forward.get_total_flops(), backward.get_total_flops()


def given(*shape, wanted=True):
    return torch.randn(shape, dtype=torch.float64, requires_grad=wanted)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_counts_as_pytorchs(is_causal, kv_heads):
    operands = given(2, 4, 7, 8), given(2, kv_heads, 9, 8), given(2, kv_heads, 9, 8)

    def attention(implementation):
        def attend(query, key, value):
            return implementation(query, key, value, is_causal=is_causal, enable_gqa=kv_heads < 4)

        return attend

    actual = counted(attention(fw.scaled_dot_product_attention), *operands)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        expected = counted(attention(functional.scaled_dot_product_attention), *operands)
    assert actual == expected
    assert actual == (2 * 2 * 4 * 7 * 9 * 16, 2 * 2 * 4 * 7 * 9 * 40)


def test_gradients_of_attention_that_nobody_wants_do_not_count():
    query, key, value = (given(1, 2, 5, 8, wanted=False) for _ in range(3))
    product = 2 * 2 * 5 * 5 * 8
    for wanted, products in [("value", 2), ("query", 3), ("key", 3)]:
        operands = {"query": query, "key": key, "value": value}
        operands[wanted] = operands[wanted].clone().requires_grad_()
        _, backward = counted(fw.scaled_dot_product_attention, *operands.values())
        assert backward == products * product
    mask, slopes = given(5, 5), given(2)
    for extras in ({"attn_mask": mask}, {"alibi_slopes": slopes}):

        def attend(*operands, extras=extras):
            return fw.scaled_dot_product_attention(*operands, **extras)

        assert counted(attend, query, key, value) == (2 * product, 2 * product)


def test_packed_sequences_count_with_their_own_lengths():
    query, key = given(7, 4, 8), given(9, 2, 8)
    offsets = torch.tensor([0, 3, 7]), torch.tensor([0, 2, 9])

    def attend(query, key):
        return fw.varlen_attention(query, key, key, *offsets, enable_gqa=True)

    pairs = 4 * (3 * 2 + 4 * 7)
    assert counted(attend, query, key) == (2 * pairs * 16, 2 * pairs * 40)


def test_attention_to_a_cache_counts():
    with torch.no_grad():
        blocks, table = torch.randn(5, 4, 2, 8), torch.tensor([[1, 0, 2], [3, 4, 0]]).int()

        def attend(query):
            return fw.paged_attention(query, blocks, blocks, table, torch.tensor([9, 5]))

        assert counted(attend, torch.randn(2, 4, 1, 8)) == (2 * 2 * 4 * 12 * 16, 0)


@pytest.mark.parametrize("activation", [None, "gelu", "tanh"])
@pytest.mark.parametrize("leading", [(6,), (2, 3)])
def test_a_linear_layer_counts_as_pytorchs(activation, leading):
    operands = given(*leading, 5), given(3, 5), given(3)

    def ours(*operands):
        return fw.linear(*operands, activation=activation)

    expected = counted(functional.linear, *operands)
    assert counted(ours, *operands) == expected == (2 * 6 * 5 * 3, 2 * 2 * 6 * 5 * 3)
    weight_only = (operands[0].detach(), *operands[1:])
    assert counted(ours, *weight_only)[1] == 2 * 6 * 5 * 3


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["GRU", "RNN", "LSTM"])
def test_a_recurrent_layer_counts_as_pytorchs(kind, bidirectional):
    # In float64, because PyTorch does not count what oneDNN computes.
    options = {"num_layers": 2, "bidirectional": bidirectional, "dtype": torch.float64}
    theirs, ours = getattr(torch.nn, kind)(5, 6, **options), getattr(fw.nn, kind)(5, 6, **options)
    x, *states = given(4, 3, 5), *(given(4 if bidirectional else 2, 3, 6) for _ in range(2))
    hx = tuple(states) if kind == "LSTM" else states[0]
    expected = counted(theirs, x, hx)
    assert counted(ours, x, hx) == expected
    assert expected[1] == 2 * expected[0]


def test_a_cell_counts_as_pytorchs():
    operands = given(4, 5), given(4, 6)
    ours, theirs = (nn.GRUCell(5, 6, dtype=torch.float64) for nn in (fw.nn, torch.nn))
    assert counted(ours, *operands) == counted(theirs, *operands)


def test_pytorchs_own_attention_counts_as_before():
    operands = [given(1, 2, 5, 8) for _ in range(3)]
    expected = counted(functional.scaled_dot_product_attention, *operands)
    with fw.enabled():
        assert counted(functional.scaled_dot_product_attention, *operands) == expected


def test_modules_and_mappings_are_heard():
    model = torch.nn.Sequential(fw.nn.Linear(5, 3), fw.nn.Linear(3, 2))
    mapping = {torch.ops.fusewire.linear: lambda *_, **__: 1}
    with FlopCounterMode(display=False) as by_name, torch.no_grad():
        model(torch.ones(4, 5))
    with FlopCounterMode(display=False, custom_mapping=mapping) as mapped, torch.no_grad():
        model(torch.ones(4, 5))
    counts = {name: sum(each.values()) for name, each in by_name.get_flop_counts().items()}
    assert counts["Sequential.0"] == 2 * 4 * 5 * 3
    assert counts["Global"] == 2 * 4 * (5 * 3 + 3 * 2)
    assert mapped.get_total_flops() == 2


def run(code):
    return subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], text=True).split()


def test_counters_that_are_older_than_our_operators_count_them():
    code = """
        import torch
        from torch.utils.flop_counter import FlopCounterMode
        import fusewire as fw
        with FlopCounterMode(display=False) as counter:
            fw.linear(torch.ones(2, 3), torch.ones(4, 3))
        print(counter.get_total_flops())
    """
    assert run(code) == ["48"]


def test_the_counter_is_imported_by_nobody_but_its_user():
    code = """
        import sys, torch
        import fusewire as fw
        layer = fw.nn.GRU(3, 4)
        layer(torch.ones(5, 2, 3))
        print("torch.utils.flop_counter" in sys.modules)
        from torch.utils.flop_counter import FlopCounterMode
        with FlopCounterMode(display=False) as counter:
            layer(torch.ones(5, 2, 3))
        print(counter.get_total_flops())
    """
    assert run(code) == ["False", str(2 * 10 * (3 + 4) * 12)]
