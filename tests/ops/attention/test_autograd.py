"""Attention on tensors: every gradient, precision beside PyTorch's, the dispatcher, compilation."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import fusewire as fw


def operands(*shapes, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes
    ]


def results(function, sources):
    """The output and the gradients of a weighted sum of it."""
    output = function(*sources)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    return [output.detach(), *torch.autograd.grad(output, sources, weights.to(output.dtype))]


def sizes_of_terms(sources, arguments):
    """The norms of the output and the gradients if no two of their terms cancelled."""
    query, key, value = (source.detach().double() for source in sources)
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    mask = arguments.get("attn_mask", torch.ones(query.shape[2], key.shape[2], dtype=torch.bool))
    if arguments.get("is_causal"):
        mask = mask.tril()
    bias = (
        torch.zeros(mask.shape).masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else mask
    )
    scale = query.shape[-1] ** -0.5
    weights = (query @ key.mT * scale + bias).softmax(-1).nan_to_num()
    output = weights @ value
    grad_output = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).double()
    products = (grad_output.abs() @ value.abs().mT) + (grad_output * output).abs().sum(-1, True)
    terms = weights * products * scale
    uncancelled = {
        "output": weights @ value.abs(),
        "query": terms @ key.abs(),
        "key": terms.mT @ query.abs(),
        "value": weights.mT @ grad_output.abs(),
    }
    return {name: float(size.norm()) for name, size in uncancelled.items()}


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    dims=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    options=st.sampled_from(["none", "causal", "bool", "float", "gqa"]),
    seed=st.integers(0, 2**16),
)
def test_errors_are_no_larger_than_those_of_pytorch(lengths, dims, options, seed):
    query_len, key_len = lengths
    kv_heads = 1 if options == "gqa" else 2
    sources = operands(
        (2, 2, query_len, dims[0]),
        (2, kv_heads, key_len, dims[0]),
        (2, kv_heads, key_len, dims[1]),
        dtype=torch.float32,
        seed=seed,
    )
    mask = torch.randn(query_len, key_len, generator=torch.Generator().manual_seed(seed))
    arguments = {
        "none": {},
        "causal": {"is_causal": True},
        "bool": {"attn_mask": mask > -1},
        "float": {"attn_mask": mask},
        "gqa": {"enable_gqa": True},
    }[options]

    def compute(attention, dtype):
        converted = {
            name: value.to(dtype) if name == "attn_mask" and options == "float" else value
            for name, value in arguments.items()
        }
        leaves = [source.detach().to(dtype).requires_grad_() for source in sources]
        return results(lambda *x: attention(*x, **converted), leaves)

    theirs = functional.scaled_dot_product_attention
    truth = compute(theirs, torch.float64)
    ours = compute(fw.scaled_dot_product_attention, torch.float32)
    theirs = compute(theirs, torch.float32)
    terms = sizes_of_terms(sources, arguments)
    for name, mine, other, true in zip(
        ["output", "query", "key", "value"], ours, theirs, truth, strict=True
    ):
        error, allowed = (mine - true).norm(), (other - true).norm()
        # A few numbers have their luck with rounding, and where terms cancel (one key alone has
        # no gradient) PyTorch may be exact; the rounding of the terms is the measure there.
        floor = 8 * torch.finfo(torch.float32).eps * terms[name]
        assert error <= max(allowed, floor), f"{name}: {error} against {allowed}"


@pytest.mark.parametrize("is_causal", [False, True])
def test_errors_are_smaller_than_those_of_pytorch_on_the_whole(is_causal):
    ratios = []
    for seed, shape in enumerate([(64, 16), (200, 40), (257, 64), (512, 80), (700, 128)]):
        sources = operands(*[(1, 2, *shape)] * 3, seed=seed)

        def compute(attention, dtype, sources=sources):
            leaves = [source.detach().to(dtype).requires_grad_() for source in sources]
            return results(lambda *x: attention(*x, is_causal=is_causal), leaves)

        theirs = functional.scaled_dot_product_attention
        truth = compute(theirs, torch.float64)
        mine = compute(fw.scaled_dot_product_attention, torch.float32)
        for one, other, true in zip(mine, compute(theirs, torch.float32), truth, strict=True):
            ratios.append((one - true).norm() / (other - true).norm())
    assert torch.stack(ratios).log().mean() <= 0, ratios


FEATURES = {
    "plain": {},
    "causal": {"is_causal": True},
    "bottom right": {"is_causal": True, "causal_alignment": "bottom_right"},
    "window": {"window": (1, 2)},
    "softcap": {"softcap": 1.5},
    "alibi": {"alibi_slopes": torch.tensor([0.3, 0.1])},
    "sinks": {"sinks": torch.tensor([0.3, -0.1], dtype=torch.float64)},
    "dropout": {"dropout_p": 0.4, "seed": 5},
    "all at once": {
        "is_causal": True,
        "causal_alignment": "bottom_right",
        "window": (3, 0),
        "softcap": 2.0,
        "alibi_slopes": torch.tensor([[0.3, 0.1], [0.0, 0.2]]),
        "sinks": torch.tensor([0.3, -0.1]),
        "dropout_p": 0.3,
        "seed": 5,
        "attn_mask": torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(2, 1, 1, 5),
        "query_lengths": torch.tensor([4, 2]),
    },
    "bool mask": {"attn_mask": torch.tensor([True, False, True, True, False])},
    "float mask": {"attn_mask": torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(4, 5)},
    "lengths": {"query_lengths": torch.tensor([4, 2]), "key_lengths": torch.tensor([0, 3])},
}


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("return_lse", [False, True])
def test_gradients_of_both_orders(feature, return_lse):
    sources = operands((2, 2, 4, 3), (2, 1, 5, 3), (2, 1, 5, 2))

    def call(*sources):
        results = fw.scaled_dot_product_attention(
            *sources, enable_gqa=True, return_lse=return_lse, **FEATURES[feature]
        )
        if not return_lse:
            return results
        # -inf has no finite differences.
        return results[0], results[1].masked_fill(results[1] == -torch.inf, 0)

    assert torch.autograd.gradcheck(call, sources)
    assert torch.autograd.gradgradcheck(call, sources)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("attn_mask", (4, 5)),
        ("attn_mask", (2, 2, 4, 5)),
        ("attn_mask", (2, 1, 1, 5)),
        ("attn_mask", (2, 4, 1)),
        ("alibi_slopes", (2,)),
        ("alibi_slopes", (2, 2)),
        ("sinks", (2,)),
        ("sinks", (2, 2)),
    ],
)
def test_gradients_of_what_is_added_to_scores(name, shape):
    sources = operands((2, 2, 4, 3), (2, 2, 5, 3), (2, 2, 5, 3), shape)

    def call(query, key, value, extra):
        return fw.scaled_dot_product_attention(
            query, key, value, softcap=1.5, is_causal=True, return_lse=True, **{name: extra}
        )

    assert torch.autograd.gradcheck(call, sources)
    assert torch.autograd.gradgradcheck(call, sources)


@pytest.mark.parametrize("dispatched", [False, True])
def test_gradients_that_nobody_wants_change_no_others(dispatched):
    sources = operands((1, 2, 40, 8), (1, 2, 50, 8), (1, 2, 50, 8), dtype=torch.float32)
    options = {"softcap": 2.0} if dispatched else {}
    call = lambda *x: fw.scaled_dot_product_attention(*x, **options)  # noqa: E731
    _, *together = results(call, sources)
    for place, true in enumerate(together):
        leaves = [source.detach() for source in sources]
        leaves[place].requires_grad_()
        output = call(*leaves)
        weights = torch.randn(
            output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        )
        (alone,) = torch.autograd.grad(output, leaves[place], weights.float())
        assert torch.equal(alone, true)


def test_dropout_drops_and_keeps_the_mean():
    query, key, value = operands((1, 2, 64, 8), (1, 2, 64, 8), (1, 2, 64, 8))

    def drop(**seed):
        return fw.scaled_dot_product_attention(query, key, value, dropout_p=0.5, **seed)

    torch.manual_seed(1)
    first, second = drop(), drop()
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(drop(), first)
    assert torch.equal(drop(seed=3), drop(seed=torch.tensor(3)))
    torch.manual_seed(0)
    output = fw.scaled_dot_product_attention(query, key, torch.ones_like(value), dropout_p=0.5)
    assert output.std() > 0.01
    assert abs(output.mean() - 1) < 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_causal", [False, True])
def test_errors_in_half_precision_are_smaller_than_those_of_pytorch_on_the_whole(dtype, is_causal):
    ratios = []
    for seed, shape in enumerate([(64, 16), (200, 40), (257, 64), (600, 80)]):
        sources = operands(*[(1, 2, *shape)] * 3, dtype=dtype, seed=seed)
        exact = [source.detach().double().requires_grad_() for source in sources]
        call = partial(functional.scaled_dot_product_attention, is_causal=is_causal)
        truth, theirs = results(call, exact), results(call, sources)
        ours = results(partial(fw.scaled_dot_product_attention, is_causal=is_causal), sources)
        for mine, other, true in zip(ours, theirs, truth, strict=True):
            assert mine.dtype == dtype
            ratios.append((mine - true).norm() / (other - true).norm())
    output, query, key, value = torch.stack(ratios).reshape(-1, 4).log().mean(0).exp()
    # PyTorch rounds probabilities as we do, but also the sums of gradients, again and again.
    assert max(output, query) < 1.01
    assert max(key, value) < 0.9


def test_half_precision_has_every_feature():
    sources = operands((2, 2, 40, 16), (2, 1, 70, 16), (2, 1, 70, 24), dtype=torch.bfloat16)
    mask, slopes, sinks = (
        operands(shape, dtype=dtype, seed=3)[0]
        for shape, dtype in [
            ((2, 2, 40, 70), torch.bfloat16), ((2,), torch.float32), ((2,), torch.bfloat16)
        ]
    )  # fmt: skip
    options = {"softcap": 2.0, "window": (30, 10), "dropout_p": 0.2, "seed": 3, "enable_gqa": True}

    def call(query, key, value, attn_mask, alibi_slopes, sinks):
        output, lse = fw.scaled_dot_product_attention(
            query, key, value, attn_mask, alibi_slopes=alibi_slopes, sinks=sinks,
            return_lse=True, **options,
        )  # fmt: skip
        assert lse.dtype == output.dtype or lse.dtype == torch.float32
        return output

    sources = [*sources, mask, slopes, sinks]
    exact = [source.detach().double().requires_grad_() for source in sources]
    for source, mine, true in zip(
        [sources[0], *sources], results(call, sources), results(call, exact), strict=True
    ):
        assert mine.dtype == source.dtype
        assert (mine - true).norm() <= 2e-2 * true.norm()


def test_half_precision_has_second_derivatives():
    sources = operands((1, 2, 5, 4), (1, 2, 6, 4), (1, 2, 6, 4), dtype=torch.bfloat16)

    def second(sources):
        output = fw.scaled_dot_product_attention(*sources)
        (first,) = torch.autograd.grad(output.square().sum(), sources[0], create_graph=True)
        return torch.autograd.grad(first.square().sum(), sources)

    exact = [source.detach().double().requires_grad_() for source in sources]
    for mine, true in zip(second(sources), second(exact), strict=True):
        assert (mine - true).norm() <= 3e-2 * true.norm()


def test_transforms_of_torch_func_work():
    sources = operands((3, 2, 4, 3), (3, 2, 5, 3), (3, 2, 5, 3))
    plain = fw.scaled_dot_product_attention(*sources)
    torch.testing.assert_close(torch.vmap(fw.scaled_dot_product_attention)(*sources), plain)
    loss = lambda *x: fw.scaled_dot_product_attention(*x).square().sum()  # noqa: E731
    torch.testing.assert_close(
        torch.func.grad(loss)(*sources), torch.autograd.grad(loss(*sources), sources[0])[0]
    )


def test_operators_keep_the_dispatchers_rules():
    query, key, value = (x.detach() for x in operands((2, 2, 4, 3), (2, 1, 5, 3), (2, 1, 5, 2)))
    fw.scaled_dot_product_attention(query, query, query)  # The first call registers them.
    mask = torch.ones(2, 1, 4, 5, dtype=query.dtype)
    row = torch.ones(1, 1, 1, 5, dtype=query.dtype)
    per_head = torch.ones(1, 2, dtype=query.dtype)
    lengths = torch.tensor([4, 2]), torch.tensor([5, 3])
    padded = (query, key, value)
    packed = tuple(operand[0].transpose(0, 1) for operand in padded)
    offsets = torch.tensor([0, 1, 4]), torch.tensor([0, 0, 5])
    seed = torch.tensor(3)
    for tensors, extras, is_packed in [
        (padded, (row, per_head, per_head, None, None, None), False),
        (padded, (mask, per_head, per_head, *lengths, seed), False),
        (packed, (row, per_head, per_head, *offsets, seed), True),
    ]:
        dropout_p = 0.2 if extras[-1] is not None else 0.0
        arguments = (*tensors, *extras, 0.5, 1.5, dropout_p, -1, 0, False, is_packed)
        forward = torch.ops.fusewire.attention.default
        output, lse = forward(*arguments)
        torch.library.opcheck(forward, arguments)
        for grad_lse in (None, torch.ones_like(lse)):
            results = (torch.ones_like(output), grad_lse, output, lse)
            for name in ["", "_mask", "_slopes", "_sinks"]:
                backward = getattr(torch.ops.fusewire, f"attention_backward{name}").default
                wanted = () if name else (True, False, True)
                torch.library.opcheck(backward, (*results, *arguments, *wanted))


@pytest.mark.filterwarnings("ignore")  # Warnings of the compiler are not ours.
def test_compiles_without_graph_breaks():
    sources = operands((1, 2, 8, 4), (1, 2, 8, 4), (1, 2, 8, 4))
    options = {"is_causal": True, "softcap": 2.0, "dropout_p": 0.2, "seed": 3}
    call = lambda *x: fw.scaled_dot_product_attention(*x, **options)  # noqa: E731
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for mine, true in zip(results(compiled, sources), results(call, sources), strict=True):
        torch.testing.assert_close(mine, true)


ones = torch.ones(1, 2, 4, 8)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "words"),
    [
        ((ones, ones[..., :4], ones), {}, ValueError, ["key", "[1, 2, 4, 8]", "[1, 2, 4, 4]"]),
        ((ones, ones.double(), ones), {}, TypeError, ["key", "float32", "float64"]),
        ((ones, ones[:, :1], ones[:, :1]), {}, ValueError, ["enable_gqa"]),
        ((ones, 3, ones), {}, TypeError, ["key", "int"]),
        ((ones, None, ones), {}, TypeError, ["key", "NoneType"]),
        ((ones.long(), ones, ones), {}, TypeError, ["query", "float32", "int64"]),
        ((ones.to("meta"), ones, ones.double()), {}, TypeError, ["value", "float32", "float64"]),
        ((ones[0, 0, 0], ones, ones), {}, ValueError, ["query", "2 dimensions"]),
        (
            (ones.expand(2, 3, 2, 4, 8), ones.expand(3, 2, 2, 4, 8), ones),
            *({}, ValueError, ["before their heads", "[2, 3, 2, 4, 8], [3, 2, 2, 4, 8]"]),
        ),
        ((ones, ones, ones, ones[..., :3].bool()), {}, ValueError, ["attn_mask", "[1, 2, 4, 3]"]),
        ((ones, ones, ones, ones[0, 0].int()), {}, TypeError, ["attn_mask", "int32"]),
        ((ones, ones, ones), {"key_lengths": torch.tensor([5])}, ValueError, ["key_lengths[0]"]),
        ((ones, ones, ones), {"sinks": torch.ones(3)}, ValueError, ["sinks", "[1, 2]", "[1, 3]"]),
    ],
)
def test_bad_input_is_told(arguments, options, kind, words):
    with pytest.raises(kind) as raised:
        fw.scaled_dot_product_attention(*arguments, **options)
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_batch_of_gradients_at_once():
    query, key, value = torch.randn(3, 2, 2, 5, 4).unbind()
    query.requires_grad_()
    upstream = torch.randn(3, 2, 2, 5, 4)
    output = fw.scaled_dot_product_attention(query, key, value, is_causal=True)
    (actual,) = torch.autograd.grad(
        output, query, upstream, retain_graph=True, is_grads_batched=True
    )
    each = [torch.autograd.grad(output, query, one, retain_graph=True)[0] for one in upstream]
    torch.testing.assert_close(actual, torch.stack(each))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mask", [False, True])
def test_a_key_that_is_alone_leaves_scores_without_gradients(dtype, mask):
    """What its probability of 1 is taken off is the same number, so nothing of either is left."""
    sources = operands((2, 3, 7, 24), (2, 3, 1, 24), (2, 3, 1, 24), dtype=dtype)
    bias = [torch.randn(2, 3, 7, 1, dtype=dtype).requires_grad_()] if mask else []

    def function(query, key, value, *bias):
        return fw.scaled_dot_product_attention(query, key, value, *bias)

    _, of_query, of_key, _, *of_bias = results(function, sources + bias)
    assert not any(gradient.any() for gradient in (of_query, of_key, *of_bias))


@pytest.mark.parametrize("seed", [1.5, 2**64, "1"])
def test_what_is_no_seed_is_told(seed):
    x = torch.ones(1, 2, 4, 8)
    with pytest.raises(ValueError, match=f"seed must be a whole number .*, but is {seed!r}"):
        fw.scaled_dot_product_attention(x, x, x, dropout_p=0.5, seed=seed)
