"""Packed documents: each piece once an epoch, targets within their documents."""

from __future__ import annotations

import numpy as np
import pytest

from fusewire.data.packed import PackedDocuments

# Each document has its own hundred, so that a token tells where it comes from.
DOCUMENTS = [np.arange(length) + 100 * number for number, length in enumerate([30, 2, 9, 17, 1])]


def test_an_epoch_holds_every_pair_of_neighbours_once() -> None:
    packed = PackedDocuments(DOCUMENTS, tokens=20, context=12, seed=5)
    for epoch in range(3):
        seen: list[int] = []
        first = packed._epochs[epoch] if epoch < len(packed._epochs) else None
        assert first is not None
        step = first
        while len(packed._epochs) <= epoch + 1 or step < packed._epochs[epoch + 1]:
            batch = packed.at(step)
            assert batch.inputs.shape == batch.targets.shape
            assert batch.inputs.shape[1] <= 20
            assert batch.boundaries[0] == 0
            assert batch.boundaries[-1] == batch.inputs.shape[1]
            assert (np.diff(batch.boundaries) <= 12).all()
            assert (batch.targets == batch.inputs + 1).all()
            for start, end in zip(batch.boundaries[:-1], batch.boundaries[1:], strict=True):
                assert len(set(batch.inputs[0, start:end] // 100)) == 1
            seen.extend(batch.inputs[0].tolist())
            step += 1
        expected = [int(token) for document in DOCUMENTS for token in document[:-1]]
        assert sorted(seen) == sorted(expected)


def test_the_order_is_a_function_of_the_step() -> None:
    first, second = (PackedDocuments(DOCUMENTS, 20, 12, seed=5) for _ in range(2))
    steps = [first.at(step).inputs.tolist() for step in range(12)]
    for step in (11, 3, 0, 11):
        assert second.at(step).inputs.tolist() == steps[step]
    assert PackedDocuments(DOCUMENTS, 20, 12, seed=6).at(0).inputs.tolist() != steps[0]


def test_nothing_to_pack_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two tokens"):
        PackedDocuments([np.arange(1)], 8, 8, seed=0)
    with pytest.raises(ValueError, match="tokens must be at least context, 8, got 4"):
        PackedDocuments(DOCUMENTS, 4, 8, seed=0)
