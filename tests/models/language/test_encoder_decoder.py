"""Both encoder-decoders: what source and target may see, and what a cache must not change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusewire.models.language import (
    EncoderDecoder,
    EncoderDecoderConfig,
    RecurrentEncoderDecoder,
    RecurrentEncoderDecoderConfig,
    TransformerConfig,
    beam_search,
    generate,
)

VOCAB_SIZE = 13
KINDS = ["transformer", "lstm-luong", "gru-luong", "lstm-bahdanau", "gru-bahdanau"]


def make_model(kind: str):
    torch.manual_seed(0)
    if kind == "transformer":
        half = TransformerConfig(context=12, layers=2, heads=4, embed_dim=32, kv_heads=2)
        model = EncoderDecoder(EncoderDecoderConfig(half, half), VOCAB_SIZE)
        for parameter in model.parameters():
            parameter.data.mul_(4.0 if parameter.dim() >= 2 else 1.0)
        return model.eval()
    cell, attention = kind.split("-")
    sizes = RecurrentEncoderDecoderConfig(cell, attention, embed_dim=16, hidden_size=16)
    return RecurrentEncoderDecoder(sizes, VOCAB_SIZE).eval()


def random_tokens(batch: int, seq_len: int, seed: int) -> Tensor:
    return torch.randint(
        VOCAB_SIZE, (batch, seq_len), generator=torch.Generator().manual_seed(seed)
    )


SOURCE, TARGET = random_tokens(3, 9, seed=1), random_tokens(3, 7, seed=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_target_token_changes_no_earlier_logits(kind: str) -> None:
    model, changed = make_model(kind), TARGET.clone()
    changed[:, 4] = (changed[:, 4] + 1) % VOCAB_SIZE
    before, after = model(SOURCE, TARGET), model(SOURCE, changed)
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=1e-6)
    assert (after[:, 4:] - before[:, 4:]).abs().amax(dim=(0, 2)).gt(1e-5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_source_matters_at_every_target_token(kind: str) -> None:
    model = make_model(kind)
    for place in (0, 8):
        changed = SOURCE.clone()
        changed[:, place] = (changed[:, place] + 1) % VOCAB_SIZE
        difference = (model(changed, TARGET) - model(SOURCE, TARGET)).abs().amax(dim=(0, 2))
        assert difference.gt(1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_of_the_source_is_not_read(kind: str) -> None:
    model, lengths = make_model(kind), torch.tensor([9, 4, 1])
    whole = model(SOURCE, TARGET, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = model(SOURCE[row : row + 1, :length], TARGET[row : row + 1])
        torch.testing.assert_close(whole[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pieces", [[1] * 7, [3, 1, 3]])
def test_a_target_in_pieces_gives_the_same_logits(kind: str, pieces: list[int]) -> None:
    model, lengths = make_model(kind), torch.tensor([9, 4, 1])
    conditioned = model.conditioned(SOURCE, lengths)
    parts = TARGET.split(pieces, dim=1)
    last, state = conditioned.begin(parts[0], None)
    whole = model(SOURCE, TARGET, lengths)
    torch.testing.assert_close(last, whole[:, pieces[0] - 1], rtol=1e-4, atol=1e-4)
    start = pieces[0]
    for part in parts[1:]:
        logits, state = conditioned(part, state)
        end = start + part.shape[1]
        torch.testing.assert_close(logits, whole[:, start:end], rtol=1e-4, atol=1e-4)
        start = end


@pytest.mark.parametrize("kind", KINDS)
def test_cached_generation_equals_uncached_and_a_beam_of_one(kind: str) -> None:
    model, begin = make_model(kind), torch.zeros(3, 1, dtype=torch.long)
    conditioned = model.conditioned(SOURCE, torch.tensor([9, 4, 1]))
    greedy = generate(conditioned, begin, length=11, temperature=0.0)
    uncached = generate(conditioned, begin, length=11, temperature=0.0, cached=False)
    assert torch.equal(greedy, uncached)
    assert torch.equal(beam_search(conditioned, begin, length=11, beams=1)[0], greedy)
    # The beams of one row must not mix with those of another.
    wide, _ = beam_search(conditioned, begin, length=5, beams=3)
    alone, _ = beam_search(model.conditioned(SOURCE[:1]), begin[:1], length=5, beams=3)
    assert torch.equal(wide[:1], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_maps_are_distributions_over_the_source(kind: str) -> None:
    model = make_model(kind)
    maps = model.attention_map(SOURCE, TARGET, torch.tensor([9, 4, 1]))
    assert maps.shape[1:] == (3, 7, 9)
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))
    assert not maps[:, 1, :, 4:].any()
    assert torch.allclose(maps[:, 2, :, 0], torch.ones(()))


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    model = make_model(kind).train()
    model(SOURCE, TARGET, torch.tensor([9, 4, 1])).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_encoder_and_decoder_share_no_weights(kind: str) -> None:
    model = make_model(kind)
    encoder = {parameter.data_ptr() for parameter in model.encoder.parameters()}
    decoder = {parameter.data_ptr() for parameter in model.decoder.parameters()}
    assert not encoder & decoder


@pytest.mark.parametrize("kind", KINDS)
def test_saved_models_come_back(kind: str, tmp_path) -> None:
    model = make_model(kind)
    model.save_pretrained(tmp_path / "model")
    loaded = type(model).from_pretrained(tmp_path / "model").eval()
    assert loaded.config == model.config
    assert torch.equal(loaded(SOURCE, TARGET), model(SOURCE, TARGET))
