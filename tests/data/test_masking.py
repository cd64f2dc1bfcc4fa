"""What is masked, what becomes of it, and what a denoiser is given."""

from __future__ import annotations

import numpy as np
import pytest

from fusewire.data.batch import IGNORED
from fusewire.data.masking import MaskedWindows, Masker, NoisyWindows, make_pairs

VOCAB_SIZE = 50


def masked(begins_word: np.ndarray | None = None, **options: float) -> MaskedWindows:
    tokens = np.random.default_rng(0).integers(0, VOCAB_SIZE, 5000)
    begins = np.ones(VOCAB_SIZE, dtype=bool) if begins_word is None else begins_word
    return MaskedWindows(tokens, 64, 100, 7, Masker(begins, **options))


def test_fifteen_percent_are_chosen_and_meet_their_fates() -> None:
    windows = masked()
    batches = [windows.at(step) for step in range(20)]
    inputs = np.concatenate([batch.inputs for batch in batches])
    targets = np.concatenate([batch.targets for batch in batches])
    chosen = targets != IGNORED
    assert chosen.mean() == pytest.approx(0.15, abs=1e-9)
    fates = inputs[chosen]
    mask = VOCAB_SIZE
    assert (fates == mask).mean() == pytest.approx(0.8, abs=0.01)
    # A random token is the right one in 1 of 50 cases.
    kept = 0.1 + 0.1 / VOCAB_SIZE
    assert (fates == targets[chosen]).mean() == pytest.approx(kept, abs=0.01)
    assert inputs.max() == mask
    assert targets.max() < VOCAB_SIZE
    # What is not chosen is there as it was, and chosen tokens are spread over all places.
    assert (inputs[~chosen] < VOCAB_SIZE).all()
    assert chosen.mean(axis=0).max() < 0.2


def test_words_are_chosen_whole() -> None:
    begins = np.arange(VOCAB_SIZE) < 15
    masker = Masker(begins)
    rng = np.random.default_rng(1)
    rows = rng.integers(0, VOCAB_SIZE, (32, 100))
    chosen = np.stack([masker.choose(row, rng) for row in rows])
    batch = masker.masked(rows, chosen, rng)
    shares = []
    for row, targets in zip(rows, batch.targets, strict=True):
        words = np.cumsum(begins[row])
        chosen = targets != IGNORED
        for word in np.unique(words):
            assert chosen[words == word].all() or not chosen[words == word].any()
        shares.append(chosen.mean())
    assert np.mean(shares) == pytest.approx(0.15, abs=0.015)


@pytest.mark.parametrize("length", [8, 20, 33, 64, 128])
@pytest.mark.parametrize("words", [0.0, 0.1, 0.3, 1.0])
def test_so_many_are_chosen_on_average(length: int, words: float) -> None:
    begins = np.arange(1000) < 1000 * words
    masker, rng = Masker(begins), np.random.default_rng(2)
    shares = [masker.choose(rng.integers(0, 1000, length), rng).mean() for _ in range(2000)]
    error = np.std(shares) / np.sqrt(len(shares))
    assert abs(np.mean(shares) - 0.15) < max(4 * error, 1e-9)


def test_a_row_of_one_word_is_masked_in_part() -> None:
    windows = masked(np.zeros(VOCAB_SIZE, dtype=bool))
    counts = (windows.at(0).targets != IGNORED).sum(axis=1)
    assert set(counts.tolist()) <= {10, 15, 25}  # 15 at a time, and the 10 that are left


def test_a_batch_has_something_to_predict() -> None:
    masker, rng = Masker(np.ones(VOCAB_SIZE, dtype=bool), 0.01), np.random.default_rng(0)
    for _ in range(20):
        chosen = masker.choose_in_all([np.array([1, 2]), np.array([3])], rng)
        assert [len(row) for row in chosen] == [2, 1]
        assert sum(int(row.sum()) for row in chosen) >= 1


def test_the_order_is_a_function_of_the_step() -> None:
    first, second = masked(), masked()
    for step in (5, 0, 5):
        np.testing.assert_array_equal(first.at(step).inputs, second.at(step).inputs)
    assert not np.array_equal(first.at(0).inputs, first.at(1).inputs)


def test_noise_replaces_spans_by_one_mask_each() -> None:
    tokens = np.random.default_rng(0).integers(0, VOCAB_SIZE, 5000)
    windows = NoisyWindows(tokens, 16, 60, 3, VOCAB_SIZE)
    batch = windows.at(4)
    assert (windows.mask, windows.begin, windows.end) == (50, 51, 52)
    for row in range(16):
        source = batch.source[row, : batch.source_lengths[row]]
        target = batch.targets[row, :60]
        # Two masks are never neighbours, and what is left is the target's, in its order.
        assert not ((source[1:] == 50) & (source[:-1] == 50)).any()
        left = source[source != 50]
        assert len(left) == 60 - 18
        place = 0
        for token in left:
            place += int(np.flatnonzero(target[place:] == token)[0]) + 1
        assert batch.targets[row, 60] == 52
        np.testing.assert_array_equal(batch.inputs[row], [51, *target])
    assert (batch.source_lengths < 60).all()


def test_pairs_are_shifted_and_padded() -> None:
    sources = [np.array([1, 2, 3]), np.array([4])]
    targets = [np.array([5]), np.array([6, 7])]
    batch = make_pairs(sources, targets, begin=8, end=9)
    assert batch.source.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert batch.source_lengths.tolist() == [3, 1]
    assert batch.inputs.tolist() == [[8, 5, 9], [8, 6, 7]]
    assert batch.targets.tolist() == [[5, 9, IGNORED], [6, 7, 9]]
