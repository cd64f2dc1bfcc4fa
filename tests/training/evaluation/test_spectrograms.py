"""Sound as pictures: the right band for a tone, and a classifier that hears."""

from __future__ import annotations

import math

import pytest
import torch

from fusewire.training.evaluation.features import train_features
from fusewire.training.evaluation.spectrograms import LogMel


@pytest.mark.parametrize(("rate", "length"), [(8000, 4096), (44100, 16384), (1000, 10)])
def test_a_tone_is_loudest_in_its_own_band(rate: int, length: int) -> None:
    view = LogMel(rate, length)
    assert (view(torch.zeros(1, 1, length)) == -1).all()
    triangles = view.triangles
    assert (triangles.sum(1) > 0).all()
    for band in (5, 20, 35):
        frequency = rate / 2 * triangles[band].argmax().item() / (triangles.shape[1] - 1)
        wave = torch.sin(2 * math.pi * frequency / rate * torch.arange(length))
        loudest = view(wave[None, None])[0, 0].mean(1).argmax().item()
        assert triangles[loudest].argmax() == pytest.approx(triangles[band].argmax(), abs=1)


def test_tones_are_told_apart_from_few_recordings() -> None:
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    time = torch.arange(2048) / 8000
    pitches = torch.tensor([300.0, 500.0, 800.0])[labels, None]
    phases = 6.3 * torch.rand(60, 1, generator=source)
    noise = 0.1 * torch.randn(60, 2048, generator=source)
    waves = (torch.sin(2 * math.pi * pitches * time + phases) + noise)[:, None]
    assert train_features(waves, labels, steps=20, rate=8000).accuracy == 1.0
