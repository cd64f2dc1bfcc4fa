"""What runs on PyTorch's operators is refused in the words of the kernels."""

import pytest
import torch

import fusewire as fw

query = torch.ones(2, 4, 3, 8)
key = value = torch.ones(2, 4, 5, 8)
rows = torch.ones(6, 4, 8)
ends = torch.tensor([0, 2, 6])


def attend(query, *, key=key, value=value, mask=None, **options):
    return fw.scaled_dot_product_attention(query, key, value, mask, **options)


def attend_packed(query, *, starts=ends, mask=None, value=rows, **options):
    return fw.varlen_attention(query, rows, value, starts, ends, mask, **options)


PADDED = {
    "too long": {"key_lengths": torch.tensor([5, 9])},
    "below 0": {"query_lengths": torch.tensor([-2, 1], dtype=torch.int32)},
    "too many lengths": {"key_lengths": torch.tensor([1, 2, 3])},
    "fractions": {"key_lengths": torch.ones(2)},
    "heads of values": {"value": value[:, :1]},
    "shared heads": {"key": key[:, :3], "value": value[:, :3], "enable_gqa": True},
    "no heads of keys": {"key": key[:, :0], "value": value[:, :0], "enable_gqa": True},
    "fewer values": {"value": value[:, :, :4]},
    "another head_dim": {"key": key[..., :4]},
    "rows of the mask": {"mask": torch.ones(4, 5)},
    "batch of the mask": {"mask": torch.ones(3, 1, 3, 5, dtype=torch.bool)},
    "five dimensions": {"mask": torch.ones(1, 2, 4, 3, 5)},
    "slopes": {"alibi_slopes": torch.ones(3)},
    "sinks": {"sinks": torch.ones(3, 4)},
    "no sinks": {"sinks": torch.ones(0)},
    "seeds": {"dropout_p": 0.5, "seed": torch.tensor([1, 2])},
}
PACKED = {
    "large mask": {"mask": torch.ones(6, 6)},
    "small mask": {"mask": torch.ones(3, 3)},
    "not rising": {"starts": torch.tensor([0, 7, 6])},
    "not from 0": {"starts": torch.tensor([1, 2, 6])},
    "not to the end": {"starts": torch.tensor([0, 2, 5])},
    "other sequences": {"starts": torch.tensor([0, 6])},
    "none": {"starts": torch.tensor([], dtype=torch.int64)},
    "sinks": {"sinks": torch.ones(3, 4)},
    "fewer values": {"value": rows[:5]},
}


@pytest.mark.parametrize(
    ("call", "operand", "options"),
    [(attend, query, options) for options in PADDED.values()]
    + [(attend_packed, rows, options) for options in PACKED.values()],
    ids=[*PADDED, *(f"packed: {name}" for name in PACKED)],
)
def test_bad_input_is_told_alike(call, operand, options):
    with pytest.raises((ValueError, TypeError)) as kernels:
        call(operand, **options)
    with pytest.raises((ValueError, TypeError)) as others:
        torch.func.grad(lambda x: call(x, **options).sum())(operand)
    assert (others.type, str(others.value)) == (kernels.type, str(kernels.value))


def test_shapes_are_compared_where_there_are_no_values():
    on_meta = [operand.to("meta") for operand in (query, key, value)]
    lengths = torch.tensor([9, 9], device="meta")
    assert fw.scaled_dot_product_attention(*on_meta, key_lengths=lengths).shape == query.shape
    with pytest.raises(ValueError, match=r"key_lengths must have shape \[2\], but has \[1\]"):
        fw.scaled_dot_product_attention(*on_meta, key_lengths=lengths[:1])
    with pytest.raises(ValueError, match=r"attn_mask must be broadcastable to \[2, 4, 3, 5\]"):
        fw.scaled_dot_product_attention(*on_meta, torch.ones(4, 5, device="meta"))


def test_a_batch_of_lengths_has_no_values_to_look_at():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 4, 5, 8, generator=generator)
    lengths = torch.tensor([[1, 5], [2, 3], [0, 4]])

    def call(x, lengths):
        return fw.scaled_dot_product_attention(x, x, x, key_lengths=lengths)

    each = [call(*pair) for pair in zip(x, lengths, strict=True)]
    torch.testing.assert_close(torch.vmap(call)(x, lengths), torch.stack(each))
