"""What recurrent layers refuse, in the same words for arrays and tensors."""

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence

import fusewire as fw
from fusewire.ops.rnn import LayerWeights, gru_backward, lstm_backward, rnn_backward

DOORS = {"arrays": np.asarray, "tensors": torch.tensor}
LAYERS = {"lstm": (fw.lstm, 4), "gru": (fw.gru, 3), "rnn": (fw.rnn, 1)}


@pytest.fixture(params=DOORS)
def door(request):
    return DOORS[request.param]


def zeros(door, *shape, dtype=np.float32):
    return door(np.zeros(shape, dtype))


def entry_of(door, gates=4, input_size=3, hidden_size=5, **change):
    rows = gates * hidden_size
    shapes = [(rows, input_size), (rows, hidden_size), (rows,), (rows,)]
    return LayerWeights(*(zeros(door, *shape) for shape in shapes))._replace(**change)


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (TypeError, "dropout must be a number, but is 'a'", {"dropout": "a"}),
        (TypeError, "dropout must be a number, but is None", {"dropout": None}),
        (TypeError, "zoneout must be a number, but is 'x'", {"zoneout": "x"}),
        (ValueError, r"one probability or two, but is \(0.1,\)", {"zoneout": (0.1,)}),
        (ValueError, "one probability or two", {"zoneout": (0.1, 0.2, 0.3)}),
        (ValueError, "seed must be a whole number of 64 bits", {"seed": 2**80}),
        (ValueError, "seed must be a whole number of 64 bits", {"seed": 1.5}),
    ],
)
def test_options(door, error, words, options):
    with pytest.raises(error, match=words):
        fw.lstm(zeros(door, 2, 1, 3), None, [entry_of(door)[:4]], **options)


@pytest.mark.parametrize("name", ["gru", "rnn"])
@pytest.mark.parametrize("zoneout", [(0.1, 0.9), (0.0, 0.9)])
def test_a_second_zoneout_where_there_is_no_cell_state(door, name, zoneout):
    call, gates = LAYERS[name]
    words = f"zoneout must be a single probability for {name}"
    with pytest.raises(ValueError, match=words):
        call(zeros(door, 2, 1, 3), None, [entry_of(door, gates)], zoneout=zoneout)
    with pytest.raises(ValueError, match=words):
        getattr(fw.nn, name.upper())(3, 5, zoneout=zoneout)


def test_options_of_gradients():
    x, outer = np.zeros((2, 1, 3)), np.zeros((2, 1, 5))
    for backward, name, option in [
        (lstm_backward, "lstm", "reset_after"),
        (lstm_backward, "lstm", "kind"),
        (gru_backward, "gru", "nonlinearity"),
        (rnn_backward, "rnn", "reset_after"),
    ]:
        with pytest.raises(TypeError, match=f"{name} has no option '{option}'"):
            backward(outer, None, x, None, [], **{option: True})


def test_a_gradient_of_another_type():
    weights = [entry_of(np.asarray, 3)]
    x, outer = np.zeros((2, 1, 3), np.float32), np.zeros((2, 1, 5))
    with pytest.raises(TypeError, match="grad_output must be float32 like the input, but is float"):
        gru_backward(outer, None, x, None, weights, reset_after=False)
    with pytest.raises(TypeError, match="grad_state must be float32 like the input, but is float6"):
        gru_backward(outer.astype(np.float32), outer[:1], x, None, weights)


@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize(
    ("error", "words", "weights"),
    [
        (TypeError, "weights must be a sequence .* is NoneType", lambda _: None),
        (TypeError, "entry 0 of weights must be a sequence .* is NoneType", lambda _: [None]),
        (TypeError, "entry 0 of weights must be a sequence", lambda door: list(entry_of(door)[:4])),
        (
            ValueError,
            "weight_ih of entry 0 must have 2 dimensions",
            lambda door: [entry_of(door, weight_ih=zeros(door, 20))],
        ),
        (
            ValueError,
            r"weight_ih of entry 1 must have shape \(20, 5\), but has \(20, 3\)",
            lambda door: [entry_of(door)] * 2,
        ),
        (
            ValueError,
            r"weight_ih of entry 1 must have shape \(20, 5\), but has \(16, 5\)",
            lambda door: [entry_of(door), entry_of(door, 4, 5, 4)],
        ),
        (
            ValueError,
            r"bias_hh of entry 0 must have shape \(20,\), but has \(19,\)",
            lambda door: [entry_of(door, bias_hh=zeros(door, 19))],
        ),
        (
            TypeError,
            "peephole of entry 0 must be float32 like the input, but is float64",
            lambda door: [entry_of(door, peephole=zeros(door, 3, 5, dtype=np.float64))],
        ),
        (
            TypeError,
            "norm_hh of entry 0 must be float32 like the input, but is float64",
            lambda door: [
                entry_of(door, norm_ih=zeros(door, 20), norm_hh=zeros(door, 20, dtype=np.float64))
            ],
        ),
    ],
)
def test_weights(door, error, words, weights, with_gradients):
    x = zeros(door, 2, 1, 3)
    if with_gradients and isinstance(x, torch.Tensor):
        x.requires_grad_()
    with pytest.raises(error, match=words):
        fw.lstm(x, None, weights(door))
    if with_gradients and isinstance(x, np.ndarray):
        with pytest.raises(error, match=words):
            lstm_backward(zeros(door, 2, 1, 5), None, x, None, weights(door))


def test_states_of_another_type_beside_peepholes(door):
    entry = entry_of(door, peephole=zeros(door, 3, 5))
    states = zeros(door, 1, 1, 5), zeros(door, 1, 1, 5, dtype=np.float64)
    with pytest.raises(TypeError, match="state must be float32 like the input, but is float64"):
        fw.lstm(zeros(door, 2, 1, 3), states, [entry])


def test_another_type_of_input_is_no_fault_of_the_weights(door):
    with pytest.raises(TypeError, match=r"input must be float32.* but is int32"):
        fw.lstm(zeros(door, 2, 1, 3, dtype=np.int32), None, [entry_of(door)[:4]])


@pytest.mark.parametrize("change", [{}, {"peephole": torch.zeros(3, 5)}])
def test_weights_on_another_device(change):
    entry = entry_of(torch.tensor, **change)
    away = [LayerWeights(*(None if w is None else w.to("meta") for w in entry))]
    with pytest.raises(ValueError, match="weight_ih of entry 0 must be on cpu like the input"):
        fw.lstm(torch.zeros(2, 1, 3), None, away)


def test_arrays_and_their_weights_are_not_mixed(door):
    other = DOORS["arrays" if door is torch.tensor else "tensors"]
    with pytest.raises(TypeError, match=r"must be a (NumPy array|PyTorch tensor)"):
        fw.lstm(zeros(door, 2, 1, 3), None, [entry_of(other)[:4]])


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "MinGRU", "MinLSTM"])
def test_what_modules_are_given(name):
    layer = getattr(fw.nn, name)(3, 5)
    with pytest.raises(TypeError, match="input must be a PyTorch tensor, but is ndarray"):
        layer(np.zeros((2, 1, 3), np.float32))
    with pytest.raises(ValueError, match="a packed sequence must have at least one step"):
        layer(PackedSequence(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)))
