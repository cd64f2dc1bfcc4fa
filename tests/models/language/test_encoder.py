"""The encoder sees the whole row, and nothing of its padding."""

from __future__ import annotations

import pytest
import torch

from fusewire.models.language import Encoder, TransformerConfig

VOCAB_SIZE = 11


def make_model(**sizes: object) -> Encoder:
    torch.manual_seed(0)
    config = TransformerConfig(**{"context": 16, "layers": 2, "heads": 4, "embed_dim": 32, **sizes})
    model = Encoder(config, VOCAB_SIZE).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4.0 if parameter.dim() >= 2 else 1.0)
    return model


def random_tokens(batch: int, seq_len: int) -> torch.Tensor:
    return torch.randint(VOCAB_SIZE, (batch, seq_len), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_every_token_sees_every_other(positions: str) -> None:
    model, tokens = make_model(positions=positions), random_tokens(2, 12)
    for place in (0, 6, 11):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % VOCAB_SIZE
        difference = (model(changed) - model(tokens)).abs().amax(dim=(0, 2))
        assert difference.gt(1e-5).all()


def test_a_window_reaches_to_both_sides() -> None:
    model, tokens = make_model(attention_window=2), random_tokens(1, 12)
    changed = tokens.clone()
    changed[:, 6] = (changed[:, 6] + 1) % VOCAB_SIZE
    reached = (model(changed) - model(tokens)).abs().amax(dim=(0, 2)).gt(1e-5)
    assert reached.nonzero().flatten().tolist() == [4, 5, 6, 7, 8]


def test_padding_is_not_seen() -> None:
    model, tokens = make_model(), random_tokens(2, 12)
    logits = model(tokens, torch.tensor([12, 5]))
    torch.testing.assert_close(logits[1:, :5], model(tokens[1:, :5]), rtol=1e-4, atol=1e-4)


def test_order_matters() -> None:
    model, tokens = make_model(), torch.tensor([[1, 2, 3, 4]])
    assert not torch.allclose(model(tokens.flip(1)).flip(1), model(tokens), atol=1e-3)
