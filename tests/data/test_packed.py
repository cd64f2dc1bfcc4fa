"""Packed documents: each piece once an epoch, targets within their documents, parts of a batch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fusewire.data.batch import IGNORED
from fusewire.data.documents import Documents
from fusewire.data.masking import Masker
from fusewire.data.packed import MaskedDocuments, PackedDocuments, consecutive

LENGTHS = [30, 2, 9, 17, 1, 12, 5]
# Each document has its own hundred, so that a token tells where it comes from.
DOCUMENTS = Documents(
    np.concatenate([np.arange(length) + 100 * number for number, length in enumerate(LENGTHS)]),
    np.cumsum([0, *LENGTHS]),
)
PAIRS = [int(token) for token in DOCUMENTS.tokens if token + 1 in DOCUMENTS.tokens]


def test_every_pair_of_neighbours_comes_equally_often() -> None:
    packed = PackedDocuments(DOCUMENTS, batch=2, context=12, seed=5)
    seen: Counter[int] = Counter()
    for step in range(60):
        batch = packed.at(step)
        assert batch.boundaries is not None
        assert batch.inputs.shape == batch.targets.shape
        # A piece more would not have fitted, and none is longer than the context.
        assert 12 < batch.inputs.shape[1] <= 24
        assert batch.boundaries[0] == 0
        assert batch.boundaries[-1] == batch.inputs.shape[1]
        assert (np.diff(batch.boundaries) <= 12).all()
        assert (batch.targets == batch.inputs + 1).all()
        for start, end in zip(batch.boundaries[:-1], batch.boundaries[1:], strict=True):
            assert len(set(batch.inputs[0, start:end] // 100)) == 1
        seen.update(batch.inputs[0].tolist())
    assert set(seen) == set(PAIRS)
    assert max(seen.values()) - min(seen.values()) <= 2  # of about 16: the first and last epoch


def test_all_pieces_in_their_order_for_measuring() -> None:
    batches = list(consecutive(DOCUMENTS, 12, 3))
    assert [int(token) for batch in batches for token in batch.inputs[0]] == PAIRS
    assert sum(batch.predicted for batch in batches) == len(PAIRS)


def test_the_order_is_a_function_of_the_step() -> None:
    first, second = (PackedDocuments(DOCUMENTS, 2, 12, seed=5) for _ in range(2))
    steps = [first.at(step).inputs.tolist() for step in range(12)]
    for step in (11, 3, 0, 11):
        assert second.at(step).inputs.tolist() == steps[step]
    assert PackedDocuments(DOCUMENTS, 2, 12, seed=6).at(0).inputs.tolist() != steps[0]


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_parts_of_a_batch_are_the_batch_and_none_is_empty(batch: int) -> None:
    packed = PackedDocuments(DOCUMENTS, batch, 12, seed=1)
    for step in range(30):
        whole = packed.at(step)
        parts = [whole.part(slice(row, row + 1), batch) for row in range(batch)]
        assert all(part.inputs.size for part in parts)
        np.testing.assert_array_equal(np.concatenate([p.inputs for p in parts], 1), whole.inputs)
        lengths = [np.diff(part.boundaries) for part in parts if part.boundaries is not None]
        np.testing.assert_array_equal(np.concatenate(lengths), np.diff(whole.boundaries))
        assert sum(part.predicted for part in parts) == whole.predicted


def test_masks_stay_within_documents() -> None:
    masker = Masker(np.ones(700, dtype=bool))
    packed = MaskedDocuments(DOCUMENTS, 3, 12, 0, masker)
    for step in range(10):
        batch = packed.at(step)
        assert batch.boundaries is not None
        chosen = batch.targets[0] != IGNORED
        for start, end in zip(batch.boundaries[:-1], batch.boundaries[1:], strict=True):
            assert abs(chosen[start:end].sum() - 0.15 * (end - start)) < 1
        kept = np.where(chosen, batch.targets[0], batch.inputs[0])
        assert set(kept.tolist()) <= set(DOCUMENTS.tokens.tolist())
        np.testing.assert_array_equal(packed.at(step).inputs, batch.inputs)
