"""Sampling: the same tokens with and without a cache, and from the right distribution."""

from __future__ import annotations

import pytest
import torch

from fusewire.models.language import (
    Recurrent,
    RecurrentConfig,
    Transformer,
    TransformerConfig,
    generate,
)

VOCAB_SIZE = 11
KINDS = ["transformer", "transformer-gqa", "rnn", "lstm", "gru"]


def make_model(kind: str, context: int = 12):
    torch.manual_seed(0)
    if kind.startswith("transformer"):
        kv_heads = 2 if kind.endswith("gqa") else None
        sizes = TransformerConfig(context, layers=2, heads=4, embed_dim=32, kv_heads=kv_heads)
        model = Transformer(sizes, VOCAB_SIZE)
        for parameter in model.parameters():
            parameter.data.mul_(6.0 if parameter.dim() >= 2 else 1.0)
        return model
    return Recurrent(RecurrentConfig(kind, layers=2, embed_dim=16, hidden_size=16), VOCAB_SIZE)


class FixedPrediction:
    """Predicts the same probabilities whatever came before."""

    window = None

    def __init__(self, probabilities: list[float]) -> None:
        self.training = False
        self.logits = torch.tensor(probabilities).log()

    def initial_state(self, _batch: int) -> None:
        return None

    def __call__(self, tokens: torch.Tensor, _state: None = None) -> tuple[torch.Tensor, None]:
        return self.logits.expand(*tokens.shape, -1), None

    def train(self, mode: bool = True) -> None:
        self.training = mode


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_cached_equals_uncached_far_beyond_the_window(kind: str, temperature: float) -> None:
    model = make_model(kind)
    prompt = torch.tensor([[1, 2, 3], [4, 5, 6]])
    settings = {"length": 60, "temperature": temperature, "seed": 3}
    cached = generate(model, prompt, **settings)
    assert torch.equal(cached, generate(model, prompt, **settings, cached=False))
    assert torch.equal(cached[:, :3], prompt)


@pytest.mark.parametrize("context", [1, 2, 3])
def test_the_smallest_windows_work(context: int) -> None:
    model, prompt = make_model("transformer", context), torch.tensor([[1, 2, 3, 4, 5]])
    cached = generate(model, prompt, length=9)
    assert torch.equal(cached, generate(model, prompt, length=9, cached=False))


def test_the_greedy_token_is_the_models_own() -> None:
    model, prompt = make_model("lstm"), torch.tensor([[1, 2, 3]])
    expected = model(prompt)[0][:, -1].argmax(-1)
    assert torch.equal(generate(model, prompt, length=1, temperature=0.0)[:, 3], expected)


def test_frequencies_follow_the_prediction() -> None:
    model, prompt = FixedPrediction([0.5, 0.3, 0.2]), torch.zeros(4000, 1, dtype=torch.long)
    drawn = generate(model, prompt, length=1)[:, 1]
    frequencies = torch.bincount(drawn, minlength=3) / 4000
    torch.testing.assert_close(frequencies, torch.tensor([0.5, 0.3, 0.2]), atol=0.03, rtol=0)


def test_temperature_sharpens() -> None:
    model, prompt = FixedPrediction([0.6, 0.4]), torch.zeros(4000, 1, dtype=torch.long)
    drawn = generate(model, prompt, length=1, temperature=0.5)[:, 1]
    assert drawn.float().mean().item() == pytest.approx(0.16 / 0.52, abs=0.03)


def test_top_k_leaves_out_the_rest() -> None:
    model, prompt = FixedPrediction([0.4, 0.1, 0.3, 0.2]), torch.zeros(500, 1, dtype=torch.long)
    assert set(generate(model, prompt, length=1, top_k=2)[:, 1].tolist()) == {0, 2}
    assert set(generate(model, prompt, length=1, top_k=99)[:, 1].tolist()) == {0, 1, 2, 3}


def test_the_seed_decides() -> None:
    model, prompt = make_model("gru"), torch.tensor([[1]])
    first = generate(model, prompt, length=30, seed=1)
    assert torch.equal(first, generate(model, prompt, length=30, seed=1))
    assert not torch.equal(first, generate(model, prompt, length=30, seed=2))


def test_dropout_is_off_and_the_mode_restored() -> None:
    torch.manual_seed(0)
    model = Recurrent(RecurrentConfig(embed_dim=16, hidden_size=16, dropout=0.9), VOCAB_SIZE)
    prompt = torch.tensor([[1, 2]])
    first = generate(model, prompt, length=20, temperature=0.0)
    assert model.training
    assert torch.equal(first, generate(model, prompt, length=20, temperature=0.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": torch.empty(1, 0, dtype=torch.long)}, "at least one token"),
        ({"length": -1}, "length must not be negative, got -1"),
        ({"temperature": -0.5}, "temperature must not be negative, got -0.5"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict[str, object], message: str) -> None:
    request = {"prompt": torch.tensor([[1]]), "length": 3, **arguments}
    with pytest.raises(ValueError, match=message):
        generate(make_model("rnn"), **request)
