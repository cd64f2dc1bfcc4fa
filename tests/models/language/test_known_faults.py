"""Mistakes that language-model code is known for, each with the test that would have shown it.

The first eight are those of the example code that this project grew from; the others are from the
issue trackers of other projects.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fusewire.data.batch import IGNORED
from fusewire.data.masking import make_pairs
from fusewire.data.text import ContiguousStreams
from fusewire.data.tokenizers import ByteTokenizer
from fusewire.models.language import (
    Recurrent,
    RecurrentConfig,
    RecurrentEncoderDecoder,
    RecurrentEncoderDecoderConfig,
    generate,
)

SIZES = RecurrentEncoderDecoderConfig(embed_dim=8, hidden_size=8)


def encoder_decoder() -> RecurrentEncoderDecoder:
    torch.manual_seed(0)
    return RecurrentEncoderDecoder(SIZES, 12).eval()


@pytest.mark.parametrize("cell", ["rnn", "relu", "lstm", "gru"])
def test_the_units_asked_for_are_the_units_there(cell: str) -> None:
    model = Recurrent(RecurrentConfig(cell, embed_dim=8, hidden_size=24), 12)
    assert model.layers.hidden_size == 24
    assert model.features(torch.zeros(1, 3, dtype=torch.long))[0].shape == (1, 3, 24)


def test_encoder_and_decoder_have_weights_of_their_own() -> None:
    model = encoder_decoder()
    parts = [{p.data_ptr() for p in part.parameters()} for part in (model.encoder, model.decoder)]
    assert parts[0]
    assert parts[1]
    assert not parts[0] & parts[1]


def test_the_decoder_begins_where_the_encoder_ended() -> None:
    model = encoder_decoder()
    first, second = (model.encode(torch.tensor([[word, 5]])) for word in (1, 2))
    assert not torch.allclose(first.recurrent, second.recurrent)
    logits = [model.decode(torch.tensor([[3]]), state)[0] for state in (first, second)]
    assert not torch.allclose(*logits)


def test_the_decoder_reads_what_came_before_what_it_is_to_say() -> None:
    batch = make_pairs([np.array([4, 5])], [np.array([6, 7, 8])], begin=10, end=11)
    assert batch.inputs[0, 1:].tolist() == batch.targets[0, :-1].tolist()
    assert batch.inputs[0, 0] == 10
    # The source is no target either: were both the same, the answer would be given away.
    assert not set(batch.source[0]) & set(batch.targets[0])


def test_tokens_are_embedded_and_states_begin_as_zeros() -> None:
    model = Recurrent(RecurrentConfig(embed_dim=6, hidden_size=8), 12)
    assert model.embedding.weight.shape == (12, 6)
    model(torch.tensor([[3, 5]]))[0].square().sum().backward()
    gradient = model.embedding.weight.grad
    assert gradient is not None
    assert gradient.any(1).nonzero().flatten().tolist() == [3, 5]
    hidden, cell = model.initial_state(3)
    assert hidden.shape == (1, 3, 8)
    assert not hidden.any()
    assert not cell.any()
    tokens = torch.tensor([[1], [2], [4]])
    assert torch.equal(model(tokens)[0], model(tokens, (hidden, cell))[0])


def test_the_loss_is_one_number_over_what_is_no_padding() -> None:
    model = encoder_decoder()
    sources, targets = [np.array([1, 2]), np.array([3])], [np.array([4]), np.array([5, 6, 7])]
    batch = make_pairs(sources, targets, begin=10, end=11)
    source, lengths, inputs, wanted = map(
        torch.from_numpy, (batch.source, batch.source_lengths, batch.inputs, batch.targets)
    )

    def loss(wanted: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        logits = model(source, inputs, lengths)
        return cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)

    changed = inputs.clone()
    changed[0, 2:] = 9  # behind the end of the first target
    assert loss(wanted, inputs).dim() == 0
    assert loss(wanted, inputs).item() == pytest.approx(loss(wanted, changed).item(), rel=1e-6)


def test_a_trained_model_can_be_sampled_from() -> None:
    conditioned = encoder_decoder().conditioned(torch.tensor([[1, 2, 3]]))
    assert generate(conditioned, torch.tensor([[10]]), length=4).shape == (1, 5)


def test_training_changes_the_weights_that_it_was_given_and_goes_on_with_them() -> None:
    model = Recurrent(RecurrentConfig(embed_dim=8, hidden_size=8), 12)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    tokens = torch.randint(12, (4, 9), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(30):
        loss = cross_entropy(model(tokens[:, :-1])[0].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert losses[15] < losses[0]


def test_both_parts_of_an_lstms_state_are_carried() -> None:
    model = Recurrent(RecurrentConfig(embed_dim=8, hidden_size=8), 12)
    tokens = torch.randint(12, (1, 10), generator=torch.Generator().manual_seed(0))
    _, (hidden, cell) = model(tokens[:, :6])
    whole = model(tokens)[0][:, 6:]
    torch.testing.assert_close(model(tokens[:, 6:], (hidden, cell))[0], whole)
    for partial in ((hidden, torch.zeros_like(cell)), (torch.zeros_like(hidden), cell)):
        assert not torch.allclose(model(tokens[:, 6:], partial)[0], whole, atol=1e-4)


def test_a_row_goes_on_with_its_own_text() -> None:
    streams = ContiguousStreams(np.arange(1000), batch=4, context=10)
    for step in range(5):
        before, after = streams.at(step), streams.at(step + 1)
        assert after.continues
        assert (after.inputs[:, 0] == before.targets[:, -1]).all()


def test_any_character_has_tokens() -> None:
    tokenizer = ByteTokenizer()
    for text in ("naïve", "世界", "\U0001f600", "\x00"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
