"""What a recurrent model carries, and how its weights begin and are shared."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_model, save_model

from fusewire.errors import InputError
from fusewire.models.language import Recurrent, RecurrentConfig

VOCAB_SIZE = 11
CELLS = ["rnn", "relu", "lstm", "gru"]


def make_model(cell: str, **sizes: int) -> Recurrent:
    torch.manual_seed(0)
    sizes = {"embed_dim": 12, "hidden_size": 12, "layers": 2, **sizes}
    return Recurrent(RecurrentConfig(cell=cell, **sizes), VOCAB_SIZE)


def random_tokens(batch: int, seq_len: int) -> torch.Tensor:
    return torch.randint(VOCAB_SIZE, (batch, seq_len), generator=torch.Generator().manual_seed(1))


def parts_of(state) -> tuple[torch.Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_read_in_pieces_gives_the_same_logits(cell: str) -> None:
    model, tokens = make_model(cell), random_tokens(3, 20)
    whole, final = model(tokens)

    state, parts = None, []
    for piece in tokens.split([7, 1, 12], dim=1):
        logits, state = model(piece, state)
        parts.append(logits)

    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-5, atol=1e-5)
    for part, expected in zip(parts_of(state), parts_of(final), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-5, atol=1e-5)


def test_an_lstm_carries_both_parts_of_its_state() -> None:
    model, tokens = make_model("lstm"), random_tokens(1, 6)
    _, (hidden, cell) = model(tokens)
    whole = model(tokens, (hidden, cell))[0]
    for incomplete in [(torch.zeros_like(hidden), cell), (hidden, torch.zeros_like(cell))]:
        assert not torch.allclose(model(tokens, incomplete)[0], whole, atol=1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_the_initial_state_is_that_of_no_state(cell: str) -> None:
    model, tokens = make_model(cell), random_tokens(2, 5)
    assert torch.equal(model(tokens, model.initial_state(2))[0], model(tokens)[0])


@pytest.mark.parametrize("cell", CELLS)
def test_a_later_token_changes_no_earlier_logits(cell: str) -> None:
    model, tokens = make_model(cell), random_tokens(1, 10)
    changed = tokens.clone()
    changed[0, 6] = (changed[0, 6] + 1) % VOCAB_SIZE
    before, after = model(tokens)[0], model(changed)[0]
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=0, atol=1e-6)
    assert not torch.allclose(after[:, 6:], before[:, 6:], atol=1e-4)


@pytest.mark.parametrize("hidden_size", [12, 20])
def test_weights_tied_when_sizes_agree_survive_saving(hidden_size: int, tmp_path) -> None:
    model = make_model("lstm", hidden_size=hidden_size)
    names = set(model.state_dict())
    assert ("output.weight" in names) == (hidden_size != 12)

    save_model(model, str(tmp_path / "model.safetensors"))
    loaded = make_model("lstm", hidden_size=hidden_size)
    for parameter in loaded.parameters():
        parameter.data.zero_()
    load_model(loaded, str(tmp_path / "model.safetensors"))
    tokens = random_tokens(1, 5)
    assert torch.equal(loaded(tokens)[0], model(tokens)[0])


@pytest.mark.parametrize("cell", CELLS)
def test_every_parameter_gets_a_gradient(cell: str) -> None:
    model = make_model(cell)
    model(random_tokens(2, 8))[0].square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("cell", CELLS)
def test_locked_dropout_drops_a_unit_for_the_whole_sequence(cell: str) -> None:
    model = make_model(cell, dropout=0.5).train()
    seen = []
    model.dropout.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model(random_tokens(3, 9))
    assert len(seen) == 3  # after the embedding, between the layers, before the output
    for dropped in seen:
        zero = dropped == 0
        units = zero.all(dim=1)
        assert units.any()
        assert not units.all()
        if cell != "relu":  # which has zeros of its own
            assert torch.equal(zero.any(dim=1), units)


@pytest.mark.parametrize("cell", CELLS)
def test_layers_one_by_one_are_layers_in_one_call(cell: str) -> None:
    model, tokens = make_model(cell, dropout=0.5), random_tokens(3, 9)
    expected, final = model.eval()(tokens)
    model.train().dropout.forward = lambda hidden: hidden
    logits, state = model(tokens)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    for part, expected_part in zip(parts_of(state), parts_of(final), strict=True):
        torch.testing.assert_close(part, expected_part, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_at_the_end_of_a_row_is_not_read(cell: str) -> None:
    model, tokens = make_model(cell), random_tokens(2, 9)
    _, state = model(tokens, lengths=torch.tensor([9, 4]))
    _, alone = model(tokens[1:, :4])
    for part, expected in zip(parts_of(state), parts_of(alone), strict=True):
        torch.testing.assert_close(part[:, 1:], expected, rtol=1e-5, atol=1e-5)


def test_relu_begins_with_states_that_fade() -> None:
    layers = make_model("relu").layers
    for weight in (layers.weight_hh_l0, layers.weight_hh_l1):
        torch.testing.assert_close(weight @ weight.T, torch.eye(12) / 4, atol=1e-5, rtol=0)
    for bias in (layers.bias_ih_l0, layers.bias_hh_l0, layers.bias_ih_l1, layers.bias_hh_l1):
        assert not bias.any()


def test_recurrent_weights_begin_orthogonal_and_forget_gates_open() -> None:
    layers = make_model("lstm").layers
    for gate in layers.weight_hh_l0.split(12):
        torch.testing.assert_close(gate @ gate.T, torch.eye(12), atol=1e-5, rtol=0)
    assert torch.equal(layers.bias_ih_l0[12:24], torch.ones(12))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"cell": "vanilla"}, "cell must be 'rnn', 'relu', 'lstm' or 'gru', got 'vanilla'"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), got -0.1"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RecurrentConfig(**sizes)
