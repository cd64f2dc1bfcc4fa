"""Every operator gives the same on every device, in outputs and in gradients of both orders."""

import pytest
import torch

import fusewire as fw


def numbers(*shapes, device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)
        for shape in shapes
    ]


def leaves(tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def results(function, sources):
    """Outputs, and the gradients of a weighted sum of them."""
    outputs = function(*sources)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    # Logarithms of rows without keys.
    outputs = [output.masked_fill(output.isinf(), 0) for output in outputs]
    generator = torch.Generator().manual_seed(1)
    total = sum(
        (output * torch.randn(output.shape, generator=generator).to(output)).sum()
        for output in outputs
    )
    gradients = torch.autograd.grad(total, sources)
    return [*(output.detach() for output in outputs), *gradients]


def compare(function, tensors, device, tolerance=1e-4):
    """Outputs and gradients on `device` against those in float64 by our kernels."""
    found = results(function, leaves(tensors))
    expected = results(function, leaves(tensor.cpu().double() for tensor in tensors))
    for result, truth in zip(found, expected, strict=True):
        assert result.device.type == torch.device(device).type
        scale = float(truth.abs().max())
        torch.testing.assert_close(
            result.double().cpu(), truth, rtol=tolerance, atol=tolerance * scale
        )


MASK = torch.rand(2, 1, 40, 50, generator=torch.Generator().manual_seed(2)) > 0.3
FEATURES = {
    "plain": {},
    "causal": {"is_causal": True},
    "bottom right": {"is_causal": True, "causal_alignment": "bottom_right"},
    "window": {"window": (7, 3)},
    "softcap": {"softcap": 2.0},
    "mask": {"attn_mask": MASK},
    "bias": {"attn_mask": torch.linspace(-2, 2, 4 * 40 * 50).reshape(4, 40, 50)},
    "alibi": {"alibi_slopes": torch.tensor([0.1, 0.2, 0.3, 0.4])},
    "sinks": {"sinks": torch.tensor([0.0, 1.0, -1.0, 0.5])},
    "lengths": {"query_lengths": torch.tensor([40, 7]), "key_lengths": torch.tensor([50, 0])},
    "together": {
        "window": (9, 0),
        "softcap": 3.0,
        "alibi_slopes": torch.full((4,), 0.1),
        "sinks": torch.zeros(4),
        "key_lengths": torch.tensor([50, 20]),
        "causal_alignment": "bottom_right",
    },
}


def options_for(options, like):
    """The options' tensors where and how `like` is."""
    return {
        name: value
        if not isinstance(value, torch.Tensor)
        else value.to(like.device, like.dtype if value.is_floating_point() else None)
        for name, value in options.items()
    }


@pytest.mark.parametrize("lse", [False, True])
@pytest.mark.parametrize("feature", FEATURES)
def test_attention(feature, lse, attention_device):
    def run(query, key, value):
        options = options_for(FEATURES[feature], query)
        return fw.scaled_dot_product_attention(
            query, key, value, enable_gqa=True, return_lse=lse, **options
        )

    compare(
        run,
        numbers((2, 4, 40, 16), (2, 2, 50, 16), (2, 2, 50, 24), device=attention_device),
        attention_device,
    )


@pytest.mark.parametrize("feature", ["plain", "causal", "window", "sinks", "alibi", "together"])
def test_packed_attention(feature, attention_device):
    def run(query, key, value):
        options = options_for(FEATURES[feature], query)
        options.pop("key_lengths", None)
        queries = torch.tensor([0, 10, 10, 40], device=query.device)
        keys = torch.tensor([0, 20, 25, 50], device=query.device)
        return fw.varlen_attention(query, key, value, queries, keys, enable_gqa=True, **options)

    compare(
        run,
        numbers((40, 4, 16), (50, 2, 16), (50, 2, 24), device=attention_device),
        attention_device,
    )


def test_paged_attention(device):
    query, keys, values = numbers((2, 4, 1, 16), (6, 8, 2, 16), (6, 8, 2, 16), device=device)
    table = torch.tensor([[3, 1], [5, -1]], dtype=torch.int32, device=device)
    lengths = torch.tensor([13, 4], device=device)
    output = fw.paged_attention(query, keys, values, table, lengths)
    expected = fw.paged_attention(
        *(operand.cpu().double() for operand in (query, keys, values)), table.cpu(), lengths.cpu()
    )
    torch.testing.assert_close(output.double().cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", [None, "relu", "gelu", "silu", "sigmoid", "tanh"])
def test_linear(activation, device):
    def run(input, weight, bias):
        return fw.linear(input, weight, bias, activation)

    compare(run, numbers((3, 5, 17), (9, 17), (9,), device=device), device)


GATES = {"rnn": 1, "gru": 3, "lstm": 4, "min_gru": 2, "min_lstm": 3}


@pytest.mark.parametrize("lengths", [None, (7, 0, 3)])
@pytest.mark.parametrize("kind", GATES)
def test_recurrent_layers(kind, lengths, device):
    """Two layers, in both directions where PyTorch has the cell."""
    gates, hidden_size, minimal = GATES[kind], 6, kind.startswith("min")
    columns = [5, 5, 12, 12]
    shapes = [
        shape
        for width in columns
        for shape in (
            [(gates * hidden_size, width), (gates * hidden_size,)]
            if minimal
            else [(gates * hidden_size, width), (gates * hidden_size, hidden_size)]
            + [(gates * hidden_size,)] * 2
        )
    ]
    each = len(shapes) // len(columns)

    def run(input, *weights):
        entries = [weights[i : i + each] for i in range(0, len(weights), each)]
        operator = getattr(fw, kind)
        output, final = operator(input, None, entries, bidirectional=True, lengths=lengths)
        return (output, *final) if isinstance(final, tuple) else (output, final)

    compare(run, numbers((7, 3, 5), *shapes, device=device), device)


@pytest.mark.parametrize("operator", ["attention", "linear", "gru", "lstm"])
def test_second_derivatives(operator, device):
    torch.manual_seed(0)
    layers = {"gru": fw.nn.GRU, "lstm": fw.nn.LSTM}.get(operator, fw.nn.GRU)(4, 4).to(device)

    def run(x):
        if operator == "attention":
            return fw.scaled_dot_product_attention(x, x, x, is_causal=True)
        if operator == "linear":
            return fw.linear(x, x[0, 0], activation="tanh")
        return layers.to(x.dtype)(x[0])[0]

    def penalty(x):
        (gradient,) = torch.autograd.grad(run(x).pow(2).sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.pow(2).sum(), x)[0]

    (x,) = leaves(numbers((1, 3, 6, 4), device=device))
    (truth,) = leaves([x.cpu().double()])
    found = penalty(x)
    layers = layers.cpu()
    expected = penalty(truth)
    torch.testing.assert_close(found.double().cpu(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, device):
    query, weight = numbers((1, 2, 33, 16), (8, 16), device=device, dtype=dtype)
    output = fw.scaled_dot_product_attention(query, query, query, is_causal=True)
    expected = fw.scaled_dot_product_attention(*[query.cpu().double()] * 3, is_causal=True)
    torch.testing.assert_close(output.double().cpu(), expected, rtol=0.02, atol=0.02)
    rows = fw.linear(query, weight)
    expected = query.cpu().double() @ weight.cpu().double().T
    torch.testing.assert_close(rows.double().cpu(), expected, rtol=0.02, atol=0.05)


def test_dropout_is_drawn_by_the_seed(device):
    (query,) = numbers((1, 2, 64, 16), device=device)

    def run(seed):
        return fw.scaled_dot_product_attention(
            query, query, query, dropout_p=0.5, softcap=5.0, seed=seed
        )

    torch.testing.assert_close(run(3), run(3), rtol=0, atol=0)
    assert not torch.equal(run(3), run(4))


def test_offsets_that_do_not_rise_or_fit_are_refused(device):
    (rows,) = numbers((10, 2, 16), device=device)
    good = torch.tensor([0, 4, 10], device=device)
    for bad in ([0, 7, 5, 10], [0, 10], [0, 4, 11], []):
        offsets = torch.tensor(bad, dtype=torch.int64, device=device)
        with pytest.raises(ValueError, match="offsets"):
            fw.varlen_attention(rows, rows, rows, good, offsets)
