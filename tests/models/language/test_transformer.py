"""What a Transformer must and must not see, and what its cache must not change."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from safetensors.torch import load_model, save_model

from fusewire.errors import InputError
from fusewire.models.language import Transformer, TransformerConfig
from fusewire.models.language.layout import Causal
from fusewire.models.language.positions import AddedPositions, RotaryPositions, rotate

VOCAB_SIZE = 11


STYLES = {
    "gpt": {},
    "gqa": {"kv_heads": 2},
    "mqa": {"kv_heads": 1},
    "llama": {
        "positions": "rotary",
        "norm": "rms",
        "activation": "swiglu",
        "bias": False,
        "tied": False,
        "feed_forward_dim": 40,
    },
    "wide heads": {"positions": "sinusoidal", "head_dim": 12},
    "window": {"positions": "rotary", "attention_window": 3, "kv_heads": 2},
}


def make_model(**sizes: object) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(**{"context": 16, "layers": 2, "heads": 4, "embed_dim": 32, **sizes})
    model = Transformer(config, VOCAB_SIZE).eval()
    for parameter in model.parameters():  # larger weights than at the start: attention matters
        parameter.data.mul_(4.0) if parameter.dim() >= 2 else None
    return model


def random_tokens(batch: int, seq_len: int) -> torch.Tensor:
    return torch.randint(VOCAB_SIZE, (batch, seq_len), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("style", STYLES)
def test_a_later_token_changes_no_earlier_logits(style: str) -> None:
    model, tokens = make_model(**STYLES[style]), random_tokens(2, 16)
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % VOCAB_SIZE

    before, after = model(tokens)[0], model(changed)[0]

    torch.testing.assert_close(after[:, :9], before[:, :9], rtol=0, atol=1e-6)
    changed_places = (after - before).abs().amax(dim=(0, 2)).gt(1e-4)
    # Through each of two layers a window of 3 reaches two tokens on.
    reached = 14 if style == "window" else 16
    assert changed_places[9:reached].all()
    assert not changed_places[reached:].any()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("pieces", [[16], [1] * 16, [5, 1, 1, 6, 3]])
def test_a_cache_filled_in_pieces_gives_the_same_logits(style: str, pieces: list[int]) -> None:
    model, tokens = make_model(**STYLES[style]), random_tokens(2, 16)

    state, parts = model.initial_state(batch=2), []
    with torch.no_grad():
        for piece in tokens.split(pieces, dim=1):
            logits, state = model(piece, state)
            parts.append(logits)

    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens)[0], rtol=1e-4, atol=1e-4)
    assert state.length == 16


@pytest.mark.parametrize("style", STYLES)
def test_packed_sequences_do_not_see_each_other(style: str) -> None:
    model = make_model(**STYLES[style])
    lengths = [5, 1, 16, 3]
    rows = [random_tokens(1, length) for length in lengths]
    boundaries = torch.tensor([0, 5, 6, 22, 25])

    packed = model(torch.cat(rows, dim=1), boundaries=boundaries)[0]

    for row, part in zip(rows, packed.split(lengths, dim=1), strict=True):
        torch.testing.assert_close(part, model(row)[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="boundaries run from 0 to its length"):
        model(torch.cat(rows, dim=1), boundaries=boundaries[:-1])
    with pytest.raises(ValueError, match="at most 16 tokens"):
        model(torch.cat(rows, dim=1), boundaries=torch.tensor([0, 25]))


def test_rotated_products_depend_on_the_distance_only() -> None:
    config = TransformerConfig(context=64, heads=1, embed_dim=8, positions="rotary")
    rotary = RotaryPositions(config)
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))

    def product(query_place: int, key_place: int) -> float:
        turned = [
            rotate(heads, rotary(torch.tensor([place])))
            for heads, place in ((query, query_place), (key, key_place))
        ]
        return float((turned[0] * turned[1]).sum())

    assert product(9, 4) == pytest.approx(product(55, 50), abs=1e-4)
    assert product(9, 4) != pytest.approx(product(9, 5), abs=1e-2)


def test_sinusoids_are_those_of_the_paper() -> None:
    config = TransformerConfig(context=10, heads=1, embed_dim=6, positions="sinusoidal")
    place, pair = 7, 2
    angle = place / 10000 ** (2 * pair / 6)
    vector = AddedPositions(config)(torch.tensor([place]))[0]
    assert vector[2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
    assert vector[2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)
    assert not AddedPositions(config).state_dict()


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_a_token_weighs_as_much_as_its_place(positions: Literal["learned", "sinusoidal"]) -> None:
    model = Transformer(TransformerConfig(embed_dim=64, positions=positions), vocab_size=100)
    entered: list[torch.Tensor] = []
    model.dropout.register_forward_pre_hook(lambda _, arguments: entered.append(arguments[0]))
    model(torch.tensor([[3] * 50, [4] * 50]))
    tokens = model.embedding.weight[[3, 4]][:, None]
    places = entered[0] - tokens
    assert 0.7 < (tokens.square().mean() / places.square().mean()).sqrt().item() < 1.4


def test_attention_is_softmax_of_scaled_scores() -> None:
    model = make_model()
    attention = model.blocks[0].attention
    hidden = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(2))

    query, key, value = (
        part.unflatten(-1, (4, 8)).transpose(1, 2)
        for part in attention.in_proj(hidden).chunk(3, -1)
    )
    scores = query @ key.transpose(-1, -2) / 8**0.5
    scores = scores.masked_fill(torch.ones(7, 7, dtype=torch.bool).triu(1), float("-inf"))
    expected = attention.out_proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))

    torch.testing.assert_close(
        attention(hidden, Causal(hidden, None), None), expected, rtol=1e-4, atol=1e-5
    )


def test_tied_weights_are_one_parameter_and_survive_saving(tmp_path) -> None:
    model = make_model()
    save_model(model, str(tmp_path / "model.safetensors"))
    loaded = make_model()
    for parameter in loaded.parameters():
        parameter.data.zero_()
    load_model(loaded, str(tmp_path / "model.safetensors"))
    tokens = random_tokens(1, 5)
    assert torch.equal(loaded(tokens)[0], model(tokens)[0])

    model.embedding.weight.data.zero_()
    assert torch.equal(model(tokens)[0], torch.zeros(1, 5, VOCAB_SIZE))


@pytest.mark.parametrize("style", STYLES)
def test_every_parameter_gets_a_gradient(style: str) -> None:
    model, tokens = make_model(**STYLES[style]), random_tokens(2, 16)
    model(tokens)[0].square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_new_model_predicts_almost_evenly() -> None:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(context=16, embed_dim=64), VOCAB_SIZE)
    tokens = random_tokens(64, 17)
    logits = model(tokens[:, :-1])[0]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(torch.tensor(float(VOCAB_SIZE)).log().item(), abs=0.1)


def test_more_tokens_than_the_context_are_refused() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="at most 16 tokens at once, got 0 in the cache and 17"):
        model(random_tokens(1, 17))
    state = model.initial_state(1)
    model(random_tokens(1, 16), state)
    with pytest.raises(ValueError, match="got 16 in the cache and 1 new"):
        model(random_tokens(1, 1), state)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"context": 0}, "context must be at least 1, got 0"),
        ({"layers": -1}, "layers must be at least 1, got -1"),
        ({"embed_dim": 30}, "multiple of heads, got 30 and 4"),
        ({"kv_heads": 3}, "divisor of heads, got 3 and 4"),
        ({"positions": "rotary", "head_dim": 3}, "even head_dim, got 3"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TransformerConfig(**sizes)
