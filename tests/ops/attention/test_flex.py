"""What is said to FlexAttention, run by its uncompiled reference, against what is composed."""

import warnings

import pytest
import torch

from fusewire.ops.attention import composed, flex
from fusewire.ops.attention.composed import Extras
from fusewire.ops.attention.options import resolve

SIZES = (40, 30)
OFFSETS = torch.tensor([0, 10, 10, 40]), torch.tensor([0, 12, 16, 30])


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


FEATURES = {
    "plain": ({}, Extras()),
    "bottom right": ({"is_causal": True, "causal_alignment": "bottom_right"}, Extras()),
    "window": ({"window": (5, 3)}, Extras()),
    "softcap and slopes": ({"softcap": 2.0}, Extras(alibi_slopes=numbers(1, 4).abs())),
    "mask of heads": ({}, Extras(numbers(1, 4, *SIZES) > 0)),
    "bias and sinks": ({}, Extras(numbers(1, 1, *SIZES), sinks=numbers(2, 4))),
    "lengths": (
        {"is_causal": True, "causal_alignment": "bottom_right"},
        Extras(query_lengths=torch.tensor([40, 7]), key_lengths=torch.tensor([30, 0])),
    ),
    "packed": ({}, Extras(None, None, None, *OFFSETS)),
    "packed and all": (
        {"window": (9, 4), "softcap": 3.0, "causal_alignment": "bottom_right"},
        Extras(numbers(3, 1, 30, 14), numbers(3, 4).abs(), numbers(3, 4), *OFFSETS),
    ),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_flex_is_told_what_attention_is(feature, monkeypatch):
    arguments, extras = FEATURES[feature]
    packed = feature.startswith("packed")
    defaults = {
        "is_causal": False,
        "causal_alignment": "top_left",
        "window": None,
        "softcap": None,
    }
    options = resolve(16, **(defaults | arguments), scale=None, dropout_p=0.0)
    options = options._replace(packed=packed)
    query, key, value = numbers(2, 4, 40, 16), numbers(2, 2, 30, 16), numbers(2, 2, 30, 24)
    if packed:
        query, key, value = (operand[0].transpose(0, 1) for operand in (query, key, value))
    monkeypatch.setattr(flex, "_compile", lambda function: function)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*without torch.compile")
        found = flex.attention(query, key, value, *extras, options=options)
    expected = composed.attention(query, key, value, *extras, options=options)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
