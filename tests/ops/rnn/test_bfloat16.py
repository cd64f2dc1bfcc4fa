"""Recurrent layers whose weights are read as bfloat16: inference of plain layers."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import fusewire as fw

CELLS = ["RNN", "GRU", "LSTM"]


def modules_of(cell, input_size, hidden_size, **options):
    """Ours and PyTorch's in bfloat16, and PyTorch's with the same weights in float64."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, cell)(input_size, hidden_size, **options).bfloat16()
    ours = getattr(fw.nn, cell)(input_size, hidden_size, **options).bfloat16()
    ours.load_state_dict(theirs.state_dict())
    exact = getattr(torch.nn, cell)(input_size, hidden_size, **options).double()
    exact.load_state_dict(theirs.state_dict())
    return ours, theirs, exact


def flat(results):
    output, states = results
    rows = getattr(output, "data", output)
    return [rows, *(states if isinstance(states, tuple) else [states])]


def error(results, truth):
    differences = [a.double() - b for a, b in zip(flat(results), flat(truth), strict=True)]
    assert all(torch.isfinite(difference).all() for difference in differences)
    return max(float(torch.linalg.vector_norm(difference)) for difference in differences)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("seq_len", "batch", "input_size", "hidden_size"),
    [(1, 1, 5, 7), (1, 1, 64, 48), (9, 1, 6, 33), (3, 4, 1, 1), (20, 17, 31, 66), (2, 70, 3, 10)],
)
def test_errors_are_below_pytorchs(cell, seq_len, batch, input_size, hidden_size):
    ours, theirs, exact = modules_of(
        cell, input_size, hidden_size, num_layers=2, bidirectional=True
    )
    x = torch.randn(seq_len, batch, input_size).bfloat16()
    with torch.no_grad():
        truth = exact(x.double())
        result = ours(x)
        assert {tensor.dtype for tensor in flat(result)} == {torch.bfloat16}
        assert error(result, truth) <= error(theirs(x), truth) + 1e-3


@pytest.mark.parametrize("cell", CELLS)
def test_packed_sequences_and_states(cell):
    ours, _, exact = modules_of(cell, 6, 19)
    x = torch.randn(7, 4, 6).bfloat16()
    lengths = torch.tensor([3, 7, 1, 7])
    state = torch.randn(1, 4, 19).bfloat16()
    states = (state, state.flip(1)) if cell == "LSTM" else state
    wide = tuple(s.double() for s in states) if cell == "LSTM" else states.double()
    with torch.no_grad():
        result = ours(pack_padded_sequence(x, lengths, enforce_sorted=False), states)
        truth = exact(pack_padded_sequence(x.double(), lengths, enforce_sorted=False), wide)
        assert error(result, truth) < 0.02 * 7**0.5
        alone = ours(x[:3, :1], tuple(s[:, :1] for s in states) if cell == "LSTM" else state[:, :1])
        last = flat(alone)[1][0, 0]
        torch.testing.assert_close(last, flat(result)[1][0, 0], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("cell", CELLS)
def test_threads_change_nothing_and_changed_weights_are_noticed(cell):
    ours, _, _ = modules_of(cell, 40, 97)
    x = torch.randn(30, 33, 40).bfloat16()
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.no_grad():
                results.append(flat(ours(x)))
        assert all(map(torch.equal, *results))
        ours.weight_hh_l0.data[-1, -1] += 1
        with torch.no_grad():
            assert not torch.equal(ours(x)[0], results[0][0])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("cell", CELLS)
def test_layouts_of_the_input_change_nothing(cell):
    ours, _, _ = modules_of(cell, 6, 9)
    x = torch.randn(5, 3, 6).bfloat16()
    with torch.no_grad():
        expected = ours(x)[0]
        assert torch.equal(ours(x.transpose(0, 1).contiguous().transpose(0, 1))[0], expected)
        assert torch.equal(ours(x.permute(2, 1, 0).contiguous().permute(2, 1, 0))[0], expected)
        ours.batch_first = True
        assert torch.equal(ours(x.transpose(0, 1))[0].transpose(0, 1), expected)


def test_mixed_types_are_told():
    ours, _, _ = modules_of("LSTM", 4, 5)
    with torch.no_grad(), pytest.raises((TypeError, ValueError, RuntimeError), match="bfloat16"):
        ours(torch.randn(2, 3, 4).bfloat16(), (torch.zeros(1, 3, 5), torch.zeros(1, 3, 5)))
