"""`fw.nn.MultiheadAttention` beside `torch.nn.MultiheadAttention`."""

import pytest
import torch

import fusewire as fw

BATCH, QUERY_LEN, KEY_LEN, SIZE, HEADS = 3, 5, 7, 12, 4


def pair(**options):
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(SIZE, HEADS, dtype=torch.float64, **options)
    ours = fw.nn.MultiheadAttention(SIZE, HEADS, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def inputs(kdim=SIZE, vdim=SIZE, batch_first=True, batched=True):
    generator = torch.Generator().manual_seed(1)
    shapes = [(QUERY_LEN, SIZE), (KEY_LEN, kdim), (KEY_LEN, vdim)]
    if batched:
        shapes = [
            (BATCH, *shape) if batch_first else (shape[0], BATCH, shape[1]) for shape in shapes
        ]
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]


def check(ours, theirs, operands, **arguments):
    mine, weights = ours(*operands, need_weights=False, **arguments)
    true, _ = theirs(*operands, need_weights=False, **arguments)
    assert weights is None
    torch.testing.assert_close(mine, true)
    sources = [*dict.fromkeys(operands)]
    mine = torch.autograd.grad(mine.square().sum(), [*sources, *ours.parameters()])
    true = torch.autograd.grad(true.square().sum(), [*sources, *theirs.parameters()])
    for my_gradient, true_gradient in zip(mine, true, strict=True):
        torch.testing.assert_close(my_gradient, true_gradient)


@pytest.mark.parametrize(
    ("options", "layout"),
    [
        ({"batch_first": True}, {}),
        ({}, {"batch_first": False}),
        ({"bias": False, "batch_first": True}, {}),
        ({"kdim": 6, "vdim": 9, "batch_first": True}, {"kdim": 6, "vdim": 9}),
        ({}, {"batched": False}),
        ({"add_bias_kv": True, "add_zero_attn": True, "batch_first": True}, {}),
    ],
)
def test_it_is_torchs_layer(options, layout):
    check(*pair(**options), inputs(**layout))


def test_self_attention_projects_once():
    (x, *_) = inputs()
    check(*pair(batch_first=True), [x, x, x])


padding = torch.arange(KEY_LEN) >= torch.tensor([[7], [4], [2]])
hidden = torch.rand(QUERY_LEN, KEY_LEN, generator=torch.Generator().manual_seed(2)) > 0.7
hidden[:, 0] = False
added = torch.linspace(-1, 1, QUERY_LEN * KEY_LEN, dtype=torch.float64).reshape(hidden.shape)


@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
@pytest.mark.parametrize("key_padding_mask", [None, padding, -padding.double()])
@pytest.mark.parametrize("attn_mask", [None, hidden, added, hidden.expand(BATCH * HEADS, -1, -1)])
@pytest.mark.parametrize("appended", [False, True])
def test_masks(attn_mask, key_padding_mask, appended):
    layers = pair(batch_first=True, add_bias_kv=appended, add_zero_attn=appended)
    check(*layers, inputs(), attn_mask=attn_mask, key_padding_mask=key_padding_mask)


def test_causality_needs_no_reading_of_the_mask():
    ours, theirs = pair(batch_first=True)
    (x, *_) = inputs()
    mask = torch.nn.Transformer.generate_square_subsequent_mask(QUERY_LEN, dtype=torch.float64)
    check(ours, theirs, [x, x, x], attn_mask=mask, is_causal=True)
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        ours(x, x, x, need_weights=False, is_causal=True)


@pytest.mark.parametrize("batched", [True, False])
def test_what_is_appended_lies_behind_all_keys_where_the_mask_goes_unread(batched):
    layers = pair(batch_first=True, add_bias_kv=True, add_zero_attn=True)
    query, key, value = inputs(batched=batched)
    if not batched:  # The last query sees what is appended, the others do not.
        query, key, value = key[..., :SIZE], query, query
    mask = torch.triu(torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool), 1)
    check(*layers, [query, key, value], attn_mask=mask, is_causal=True)


wide = torch.zeros(1, 1, QUERY_LEN, KEY_LEN, dtype=torch.bool)


@pytest.mark.parametrize(
    "bad",
    [
        {"key_padding_mask": padding[:1]},
        {"key_padding_mask": padding[:, :4]},
        {"key_padding_mask": padding[0]},
        {"attn_mask": hidden[:1]},
        {"attn_mask": hidden[:, :4]},
        {"attn_mask": wide},
        {"attn_mask": wide[0]},
        {"attn_mask": hidden.int()},
        {"query": torch.zeros(BATCH, QUERY_LEN, SIZE + 4, dtype=torch.float64)},
        {"query": torch.zeros(QUERY_LEN, SIZE, dtype=torch.float64)},
        {"query": torch.zeros(1, BATCH, QUERY_LEN, SIZE, dtype=torch.float64)},
        {"key": torch.zeros(1, KEY_LEN, SIZE, dtype=torch.float64)},
        {"value": torch.zeros(BATCH, 1, SIZE, dtype=torch.float64)},
    ],
)
@pytest.mark.parametrize("batch_first", [True, False])
def test_what_torch_refuses_is_refused_in_its_words(bad, batch_first):
    operands = dict(zip(("query", "key", "value"), inputs(), strict=True)) | bad
    if not batch_first:
        operands |= {
            name: x.transpose(0, 1) if x.dim() == 3 else x
            for name, x in operands.items()
            if not name.endswith("mask")
        }
    told = []
    for layer in pair(batch_first=batch_first):
        with pytest.raises((AssertionError, RuntimeError)) as raised:
            layer(**operands, need_weights=False)
        told.append((raised.type, str(raised.value)))
    assert told[0] == told[1]


def test_weights_are_there_for_who_asks():
    ours, theirs = pair(batch_first=True)
    for mine, true in zip(ours(*inputs()), theirs(*inputs()), strict=True):
        torch.testing.assert_close(mine, true)


def test_dropout_in_training_only():
    ours, _ = pair(batch_first=True, dropout=0.5)
    first, second = (ours(*inputs(), need_weights=False)[0] for _ in range(2))
    assert not torch.equal(first, second)
    ours.eval()
    first, second = (ours(*inputs(), need_weights=False)[0] for _ in range(2))
    assert torch.equal(first, second)
