"""Parts of a batch as tensors, and a loss whose mean over parts is that of the whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from fusewire.data.batch import IGNORED, Batch
from fusewire.data.masking import PairBatch


@dataclass(frozen=True)
class Part:
    """What a process reads at once.

    Attributes:
        inputs: token ids, (rows, seq_len), or (1, tokens) of packed sequences.
        targets: what is to be predicted at each, or `IGNORED`.
        boundaries: where packed sequences begin, and the end of the last; ``None`` for rows.
        continues: each row goes on where it ended before.
        predicted: tokens that the whole batch predicts, as many as fall to a part of this size:
            parts may predict more or fewer, and each token shall count alike.
    """

    inputs: Tensor
    targets: Tensor
    boundaries: Tensor | None
    continues: bool
    predicted: float


@dataclass(frozen=True)
class PairPart:
    """Pairs of texts that a process reads at once.

    Attributes:
        source: token ids, (rows, source_len).
        source_lengths: those that are no padding, (rows).
        inputs: what the decoder reads, (rows, target_len).
        targets: what is to be predicted at each, or `IGNORED`.
        predicted: tokens that the whole batch predicts, as many as fall to a part of this size.
    """

    source: Tensor
    source_lengths: Tensor
    inputs: Tensor
    targets: Tensor
    predicted: float


def pair_part_of(batch: PairBatch, rows: slice, device: torch.device) -> PairPart:
    """Some of the rows of a batch of pairs."""
    source, lengths, inputs, targets = (
        torch.from_numpy(whole[rows]).to(device)
        for whole in (batch.source, batch.source_lengths, batch.inputs, batch.targets)
    )
    share = len(source) / len(batch.source)
    return PairPart(source, lengths, inputs, targets, batch.predicted * share)


def part_of(batch: Batch, rows: slice, count: int, device: torch.device) -> Part:
    """Some of the ``count`` rows of a batch."""
    part = batch.part(rows, count)

    def moved(array: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array).to(device)

    return Part(
        moved(part.inputs),
        moved(part.targets),
        None if part.boundaries is None else moved(part.boundaries),
        part.continues,
        batch.predicted * (rows.stop - rows.start) / count,
    )


def mean_cross_entropy(logits: Tensor, part: Part | PairPart) -> Tensor:
    """Nats per predicted token of (rows, seq_len, vocab_size)."""
    wanted = part.targets.flatten()
    summed = cross_entropy(logits.flatten(0, 1), wanted, ignore_index=IGNORED, reduction="sum")
    return summed / part.predicted
