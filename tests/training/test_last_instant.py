"""What is left of a run: killed before its samples were made, or with a damaged checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fusewire.errors import InputError
from fusewire.models.gan import MlpConfig
from fusewire.models.language import RecurrentConfig
from fusewire.training import embeddings
from fusewire.training.adversarial import loop as adversarial
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import DataConfig
from fusewire.training.checkpoint import CheckpointWarning, checkpoint_steps
from fusewire.training.embeddings import EmbeddingsConfig
from fusewire.training.run_directory import RunResult
from fusewire.training.sequence import language
from fusewire.training.sequence.config import LanguageConfig, SamplingConfig
from fusewire.training.session import Session

TEXT = "the cat sat on the mat and the dog ran out of the bay. " * 40


class KilledError(BaseException):
    """Stands for a signal that nothing can catch."""


def gan(folder: Path, out: Path) -> RunResult:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 1, 4, 5), dtype=np.uint8)
    np.savez(folder / "images.npz", images=pixels)
    data, model = DataConfig("images", folder / "images.npz"), MlpConfig(4, hidden_sizes=(8,))
    config = GanConfig(data=data, model=model, steps=6, batch=4, checkpoint_every=4)
    return adversarial.train(config, out)


def lstm(folder: Path, out: Path) -> RunResult:
    (folder / "text.txt").write_text(TEXT)
    config = LanguageConfig(
        model=RecurrentConfig("lstm", layers=1, embed_dim=8, hidden_size=8),
        data=folder / "text.txt",
        steps=6,
        batch=2,
        context=8,
        save_every=4,
        validation_tokens=20,
        sampling=SamplingConfig(length=5),
    )
    return language.train(config, out)


def vectors(folder: Path, out: Path) -> RunResult:
    (folder / "text.txt").write_text(TEXT)
    return embeddings.train(EmbeddingsConfig(data=folder / "text.txt", dim=8, epochs=1), out)


@pytest.mark.parametrize(
    ("train", "resume", "made"),
    [
        (gan, adversarial.resume, "samples.png"),
        (lstm, language.resume, "samples.txt"),
        (vectors, embeddings.resume, embeddings.VECTORS),
    ],
)
def test_what_a_killed_run_had_not_made_yet_is_made(
    train: Callable[[Path, Path], RunResult],
    resume: Callable[[Path], RunResult],
    made: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    step = train(tmp_path, whole).step
    save = Session.save

    def save_and_die(session: Session) -> None:
        monkeypatch.setattr(session, "_show", lambda: None)
        save(session)
        if session.step == step:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Session, "save", save_and_die)
        with pytest.raises(KilledError):
            train(tmp_path, killed)
    result = resume(killed)
    assert (result.step, result.stopped_early) == (step, False)
    assert all(path.exists() for path in result.made.values())
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}
    for name in (made, "config.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    with pytest.raises(InputError, match=f"is finished: it has done {step} steps"):
        resume(killed)


def test_a_damaged_checkpoint_takes_no_place_of_a_whole_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    lstm(tmp_path, run)
    assert checkpoint_steps(run / "checkpoint") == [4, 6]

    def damage(step: int) -> None:
        (run / "checkpoint" / f"step-{step}" / "model.safetensors").write_bytes(b"")

    damage(6)
    with pytest.warns(CheckpointWarning, match="step-6 is damaged"):
        language.resume(run, 7)
    assert sorted(path.name for path in (run / "checkpoint").iterdir()) == ["step-4", "step-7"]
    damage(7)
    with pytest.warns(CheckpointWarning, match="step-7 is damaged"):
        assert language.resume(run).step == 7
