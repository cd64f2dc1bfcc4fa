"""The inference fast path of PyTorch's attention modules, with our kernels in it."""

import warnings

import pytest
import torch

import fusewire as fw


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*nested tensors.*")
        warnings.filterwarnings("ignore", message="Converting mask without torch.bool")
        yield
    fw.disable()


class Seen(torch.utils._python_dispatch.TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name())
        return function(*args, **(kwargs or {}))


def masks():
    causal = torch.ones(7, 7, dtype=torch.bool).triu(1)
    padding = torch.arange(7) >= torch.tensor([7, 4, 5])[:, None]
    yield {}
    yield {"mask": causal}
    yield {"src_key_padding_mask": padding}
    yield {"mask": causal, "src_key_padding_mask": padding}
    yield {"mask": torch.zeros(7, 7).masked_fill(causal, -torch.inf)}


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoders(norm_first, activation):
    layer = torch.nn.TransformerEncoderLayer(
        16, 4, 32, activation=activation, norm_first=norm_first, batch_first=True
    )
    encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first).eval()
    x = torch.randn(3, 7, 16)
    for options in masks():
        with torch.no_grad():
            expected = encoder(x, **options)
            with fw.enabled(), Seen() as seen:
                actual = encoder(x, **options)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-6)
        assert "aten::_transformer_encoder_layer_fwd" in seen.names


@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention(need_weights):
    layer = torch.nn.MultiheadAttention(16, 4, batch_first=True).eval()
    x = torch.randn(3, 7, 16)
    causal = torch.ones(7, 7, dtype=torch.bool).triu(1)
    padding = torch.arange(7) >= torch.tensor([7, 4, 5])[:, None]
    for options in ({}, {"attn_mask": causal}, {"key_padding_mask": padding}):
        with torch.no_grad():
            expected = layer(x, x, x, need_weights=need_weights, **options)
            with fw.enabled():
                actual = layer(x, x, x, need_weights=need_weights, **options)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-6)


def test_nested_tensors():
    layer = torch.nn.MultiheadAttention(16, 4, batch_first=True).eval()
    rows = torch.nested.nested_tensor([torch.randn(length, 16) for length in (5, 2, 4)])
    with torch.no_grad():
        expected, _ = layer(rows, rows, rows, need_weights=False)
        with fw.enabled():
            actual, _ = layer(rows, rows, rows, need_weights=False)
    for mine, theirs in zip(actual.unbind(), expected.unbind(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=2e-6)
