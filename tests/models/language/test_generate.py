"""Sampling: the same tokens with and without a cache, and from the right distribution."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from fusewire.errors import InputError
from fusewire.models.language import (
    Recurrent,
    RecurrentConfig,
    Sampling,
    Transformer,
    TransformerConfig,
    beam_search,
    generate,
    stream,
)

VOCAB_SIZE = 11
TRANSFORMERS = {
    "transformer": {},
    "transformer-gqa": {"kv_heads": 2},
    "transformer-rotary": {"positions": "rotary", "norm": "rms", "activation": "swiglu"},
    "transformer-window": {"positions": "sinusoidal", "attention_window": 3},
}
KINDS = [*TRANSFORMERS, "rnn", "relu", "lstm", "gru"]


def make_model(kind: str, context: int = 12):
    torch.manual_seed(0)
    if kind.startswith("transformer"):
        sizes = TransformerConfig(context, layers=2, heads=4, embed_dim=32, **TRANSFORMERS[kind])
        model = Transformer(sizes, VOCAB_SIZE)
        for parameter in model.parameters():  # far from even predictions
            parameter.data.mul_(6.0 if parameter.dim() >= 2 else 1.0)
        return model
    return Recurrent(RecurrentConfig(kind, layers=2, embed_dim=16, hidden_size=16), VOCAB_SIZE)


class FixedPrediction:
    """Predicts the same probabilities whatever came before."""

    window = None

    def __init__(self, probabilities: list[float]) -> None:
        self.training = False
        self.logits = torch.tensor(probabilities).log()

    def begin(self, tokens: torch.Tensor, _padding: None) -> tuple[torch.Tensor, None]:
        return self.logits.expand(len(tokens), -1), None

    def __call__(self, tokens: torch.Tensor, _state: None) -> tuple[torch.Tensor, None]:
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cached", [True, False])
def test_prompts_of_different_lengths_do_not_disturb_each_other(kind: str, cached: bool) -> None:
    model = make_model(kind)
    prompts = [torch.tensor(row) for row in ([1, 2, 3, 4, 5], [6], [7, 8, 9])]
    settings = {"length": 40, "temperature": 0.0, "cached": cached}
    if kind.startswith("transformer"):
        settings["length"] = 12 - 5  # what one window holds: later windows begin elsewhere
    together = generate(model, prompts, **settings)
    for row, prompt in zip(together, prompts, strict=True):
        alone = generate(model, prompt[None], **settings)[0]
        assert torch.equal(row[5 - len(prompt) :], alone)
        assert not row[: 5 - len(prompt)].any()


@pytest.mark.parametrize("kind", ["transformer", "transformer-rotary", "lstm"])
def test_padded_prompts_far_beyond_the_window(kind: str) -> None:
    model = make_model(kind)
    prompts = [torch.tensor([1, 2, 3, 4, 5]), torch.tensor([6])]
    cached = generate(model, prompts, length=50, temperature=0.0)
    assert torch.equal(cached, generate(model, prompts, 50, temperature=0.0, cached=False))


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


@pytest.mark.parametrize("temperature", [1e-6, 1e-40, 1e-320])
def test_the_lowest_temperatures_take_the_likeliest(temperature: float) -> None:
    model, prompt = FixedPrediction([0.3, 0.4, 0.3]), torch.zeros(20, 1, dtype=torch.long)
    drawn = generate(model, prompt, length=1, temperature=temperature)[:, 1]
    assert drawn.tolist() == [1] * 20


def test_top_k_leaves_out_the_rest() -> None:
    model, prompt = FixedPrediction([0.4, 0.1, 0.3, 0.2]), torch.zeros(500, 1, dtype=torch.long)
    assert set(generate(model, prompt, length=1, top_k=2)[:, 1].tolist()) == {0, 2}
    assert set(generate(model, prompt, length=1, top_k=99)[:, 1].tolist()) == {0, 1, 2, 3}


def test_top_p_keeps_the_fewest_that_suffice() -> None:
    model, prompt = FixedPrediction([0.4, 0.1, 0.3, 0.2]), torch.zeros(500, 1, dtype=torch.long)
    for top_p, kept in [(0.39, {0}), (0.41, {0, 2}), (0.69, {0, 2}), (0.71, {0, 2, 3})]:
        assert set(generate(model, prompt, length=1, top_p=top_p)[:, 1].tolist()) == kept


def test_min_p_is_relative_to_the_likeliest() -> None:
    model, prompt = FixedPrediction([0.4, 0.1, 0.3, 0.2]), torch.zeros(500, 1, dtype=torch.long)
    assert set(generate(model, prompt, length=1, min_p=0.6)[:, 1].tolist()) == {0, 2}
    assert set(generate(model, prompt, length=1, min_p=1.0)[:, 1].tolist()) == {0}
    assert set(generate(model, prompt, length=1, min_p=0.0)[:, 1].tolist()) == {0, 1, 2, 3}


def test_a_penalty_keeps_tokens_from_coming_back() -> None:
    model, prompt = FixedPrediction([0.4, 0.3, 0.2, 0.1]), torch.tensor([[0], [3]])
    settings = {"length": 3, "temperature": 0.0}
    assert generate(model, prompt, **settings).tolist() == [[0, 0, 0, 0], [3, 0, 0, 0]]
    penalised = generate(model, prompt, **settings, repetition_penalty=50.0)
    assert penalised.tolist() == [[0, 1, 2, 3], [3, 0, 1, 2]]


def test_the_penalty_lowers_positive_and_negative_logits() -> None:
    logits, seen = torch.tensor([[2.0, -2.0, 1.0]]), torch.tensor([[True, True, False]])
    lowered = Sampling(repetition_penalty=2.0).penalised(logits, seen)
    assert lowered.tolist() == [[1.0, -4.0, 1.0]]


def test_streaming_gives_the_same_tokens_and_stops() -> None:
    model, prompt = make_model("gru"), torch.tensor([[1]])
    whole = generate(model, prompt, length=30, seed=1)[0, 1:].tolist()
    drawn = [column.item() for column in stream(model, prompt, 30, Sampling(), seed=1)]
    assert drawn == whole
    until = stream(model, prompt, 30, Sampling(), seed=1, finished=lambda row: row.shape[1] == 4)
    assert [column.item() for column in until] == whole[:4]
    assert torch.is_grad_enabled()


def exhaustive(model, prompt: torch.Tensor, length: int) -> list[tuple[float, list[int]]]:
    """All continuations and their scores, the best first."""
    found = []
    for tail in itertools.product(range(VOCAB_SIZE), repeat=length):
        tokens = torch.cat([prompt, torch.tensor([tail])], dim=1)
        steps = model(tokens[:, :-1])[0].log_softmax(-1)[0, prompt.shape[1] - 1 :]
        score = steps[torch.arange(length), torch.tensor(tail)].sum().item() / length
        found.append((score, list(tail)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("kind", ["transformer-rotary", "lstm"])
def test_a_beam_as_wide_as_everything_finds_the_best(kind: str) -> None:
    model, prompt = make_model(kind).eval(), torch.tensor([[1, 2]])
    scores, best = zip(*exhaustive(model, prompt, length=2), strict=True)
    for count in (1, 3):
        prompts = prompt.expand(2, -1)
        tokens, score = beam_search(model, prompts, length=2, beams=VOCAB_SIZE, count=count)
        assert tokens[:, 2:].tolist() == 2 * list(best[:count])
        assert score.tolist() == pytest.approx(2 * list(scores[:count]), abs=1e-5)
    with pytest.raises(ValueError, match="from 1 to the number of beams, 2, got 3"):
        beam_search(model, prompt, length=2, beams=2, count=3)


@pytest.mark.parametrize("kind", ["transformer", "gru"])
def test_one_beam_is_greedy_far_beyond_the_window(kind: str) -> None:
    model, prompt = make_model(kind), torch.tensor([[1, 2], [3, 4]])
    greedy = generate(model, prompt, length=40, temperature=0.0)
    assert torch.equal(beam_search(model, prompt, length=40, beams=1)[0], greedy)
    penalty = Sampling(repetition_penalty=3.0)
    rare = generate(model, prompt, length=40, temperature=0.0, repetition_penalty=3.0)
    assert not torch.equal(rare, greedy)
    assert torch.equal(beam_search(model, prompt, length=40, beams=1, sampling=penalty)[0], rare)


def test_a_beam_ends_with_its_end_token() -> None:
    model, prompt = FixedPrediction([0.1, 0.2, 0.7]), torch.tensor([[0]])
    model.select = lambda _state, _rows: None
    tokens, score = beam_search(model, prompt, length=4, beams=2, end_token=2)
    assert tokens.tolist() == [[0, 2, 2, 2, 2]]
    assert score.item() == pytest.approx(math.log(0.7), abs=1e-6)


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
        ({"prompt": [torch.tensor([1]), torch.tensor([])]}, "every prompt must hold at least one"),
        ({"length": -1}, "length must not be negative, got -1"),
        ({"temperature": -0.5}, "temperature must not be negative, got -0.5"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"min_p": 1.5}, "min_p must be from 0 to 1, got 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be more than 0, got 0.0"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict[str, object], message: str) -> None:
    request = {"prompt": torch.tensor([[1]]), "length": 3, **arguments}
    with pytest.raises((ValueError, InputError), match=message):
        generate(make_model("rnn"), **request)
