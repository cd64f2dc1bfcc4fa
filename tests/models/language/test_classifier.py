"""Classifiers and low-rank adaptation: padding must not count, and frozen must be frozen."""

from __future__ import annotations

import pytest
import torch

from fusewire.errors import InputError
from fusewire.models.language import (
    Bag,
    BagConfig,
    Classifier,
    ClassifierConfig,
    Encoder,
    Recurrent,
    RecurrentConfig,
    Transformer,
    TransformerConfig,
    add_lora,
    merge_lora,
)

SIZES = TransformerConfig(context=12, layers=2, heads=2, embed_dim=16)
READERS = {
    "transformer": lambda: Transformer(SIZES, 11),
    "encoder": lambda: Encoder(SIZES, 11),
    "lstm": lambda: Recurrent(RecurrentConfig("lstm", 2, embed_dim=16, hidden_size=16), 11),
    "bag": lambda: Bag(BagConfig(embed_dim=16), 11),
    "gru": lambda: Recurrent(RecurrentConfig("gru", 1, embed_dim=16, hidden_size=24), 11),
}
TOKENS, LENGTHS = torch.randint(1, 11, (3, 9)), torch.tensor([9, 4, 1])


def make(reader: str, pooling: str = "mean") -> Classifier:
    torch.manual_seed(0)
    return Classifier(READERS[reader](), ClassifierConfig(3, pooling)).eval()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_padding_does_not_count(reader: str, pooling: str) -> None:
    if pooling == "cls" and reader != "encoder":
        with pytest.raises(InputError, match="pooling cls needs an encoder"):
            make(reader, pooling)
        return
    model = make(reader, pooling)
    logits = model(TOKENS, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(TOKENS[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(logits[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_packed_texts_are_read_as_padded_ones(reader: str, pooling: str) -> None:
    if pooling == "cls" and reader != "encoder":
        return
    model = make(reader, pooling)
    packed = torch.cat([row[:length] for row, length in zip(TOKENS, LENGTHS, strict=True)])
    torch.testing.assert_close(model(packed, LENGTHS), model(TOKENS, LENGTHS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reader", READERS)
def test_depths_hold_every_parameter_once_from_the_head_down(reader: str) -> None:
    model = make(reader)
    depths = model.depths()
    held = [id(parameter) for layer in depths for parameter in layer]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    assert len(depths) == 2 + getattr(model.reader.config, "layers", 0)
    assert id(model.head.weight) in {id(parameter) for parameter in depths[0]}
    assert id(model.reader.embedding.weight) in {id(parameter) for parameter in depths[-1]}


@pytest.mark.parametrize("reader", sorted(READERS.keys() - {"bag"}))
def test_lora_starts_as_nothing_learns_alone_and_can_be_merged(reader: str) -> None:
    model = make(reader)
    before = model(TOKENS, LENGTHS)
    learning = add_lora(model.reader, rank=2)
    model.head.requires_grad_(True)
    torch.testing.assert_close(model(TOKENS, LENGTHS), before)

    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD([*learning, *model.head.parameters()], lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        model(TOKENS, LENGTHS).square().sum().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        if name in frozen:
            assert parameter.grad is None, name
            assert torch.equal(parameter, frozen[name]), name
    assert all(bool(parameter.any()) for parameter in learning)

    after = model(TOKENS, LENGTHS)
    assert not torch.allclose(after, before, atol=1e-3)
    names = set(make(reader).state_dict())
    merge_lora(model)
    torch.testing.assert_close(model(TOKENS, LENGTHS), after, rtol=1e-4, atol=1e-5)
    assert set(model.state_dict()) == names
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_lora_needs_something_to_adapt() -> None:
    with pytest.raises(InputError, match="neither layer nor weight called in_proj"):
        add_lora(make("lstm"), targets=("in_proj",))
    with pytest.raises(InputError, match="rank must be at least 1, got 0"):
        add_lora(make("encoder"), rank=0)
