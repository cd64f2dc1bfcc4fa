"""What a checkpoint promises: exact continuation, and a whole file or the one before."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from torch import nn

from fusewire.errors import InputError
from fusewire.training import checkpoint as checkpoint_module
from fusewire.training.checkpoint import (
    CheckpointWarning,
    checkpoint_steps,
    load_checkpoint,
    save_checkpoint,
)
from fusewire.training.seeds import RandomStreams


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("count", torch.tensor(7))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.dropout(self.embedding(tokens), 0.5))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, streams: RandomStreams, steps: int):
    losses = []
    for _ in range(steps):
        tokens = torch.from_numpy(streams.numpy.integers(0, 5, size=8))
        loss = nn.functional.cross_entropy(model(tokens), tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def start(seed: int) -> tuple[Tied, torch.optim.Optimizer, RandomStreams]:
    streams = RandomStreams(seed)
    model = Tied()
    return model, torch.optim.AdamW(model.parameters(), lr=0.01), streams


def save(folder: Path, step: int, model: nn.Module) -> Path:
    return save_checkpoint(folder, step, {"model": model}, {}, {})


def test_training_continues_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer, streams = start(0)
    train(model, optimizer, streams, 5)
    state = {"epoch": 3, "order": [2, 0, 1]}
    save_checkpoint(tmp_path, 5, {"model": model}, {"model": optimizer}, state, streams)
    expected = train(model, optimizer, streams, 5)

    other, its_optimizer, its_streams = start(99)
    loaded = load_checkpoint(tmp_path, {"model": other}, {"model": its_optimizer}, its_streams)
    assert train(other, its_optimizer, its_streams, 5) == expected
    assert (loaded.step, loaded.state, loaded.path) == (5, state, tmp_path / "step-5")
    assert torch.equal(model.embedding.weight, other.embedding.weight)


def test_optimizer_state_comes_back_whole(tmp_path: Path) -> None:
    model, optimizer, streams = start(0)
    train(model, optimizer, streams, 2)
    save_checkpoint(tmp_path, 2, {"model": model}, {"model": optimizer}, {})
    other, its_optimizer, _ = start(1)
    load_checkpoint(tmp_path, {"model": other}, {"model": its_optimizer})
    before, after = optimizer.state_dict(), its_optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    for index, entries in before["state"].items():
        assert entries.keys() == after["state"][index].keys()
        for key, value in entries.items():
            assert torch.equal(value, after["state"][index][key])


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    model, other = Tied(), Tied()
    path = save(tmp_path, 1, model)
    load_checkpoint(tmp_path, {"model": other})
    assert other.head.weight is other.embedding.weight
    assert torch.equal(other.head.weight, model.head.weight)
    one_copy = 5 * 3 * 4
    assert (path / "model.safetensors").stat().st_size < one_copy * 2 + 250


def test_only_the_newest_two_stay(tmp_path: Path) -> None:
    for step in (5, 10, 100, 20):
        save(tmp_path, step, Tied())
    assert checkpoint_steps(tmp_path) == [10, 20]  # 100 lay in the future of 20
    assert {path.name for path in tmp_path.iterdir()} == {"step-10", "step-20"}


def test_same_step_can_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 5, Tied())
    newer = Tied()
    save(tmp_path, 5, newer)
    loaded = Tied()
    load_checkpoint(tmp_path, {"model": loaded})
    assert torch.equal(loaded.head.weight, newer.head.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["step-5"]


@pytest.mark.parametrize("victim", ["model.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_falls_back_to_the_one_before(tmp_path: Path, victim: str, damage: str) -> None:
    good = Tied()
    save(tmp_path, 1, good)
    path = save(tmp_path, 2, Tied()) / victim
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(bytes([content[0] ^ 255]) + content[1:])
    loaded = Tied()
    with pytest.warns(CheckpointWarning, match="step-2 is damaged"):
        found = load_checkpoint(tmp_path, {"model": loaded})
    assert found.step == 1
    assert torch.equal(loaded.head.weight, good.head.weight)


def test_nothing_usable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint in"):
        load_checkpoint(tmp_path / "missing", {"model": Tied()})
    (save(tmp_path, 1, Tied()) / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"every checkpoint in .* is damaged: .*step-1 is damaged"):
        load_checkpoint(tmp_path, {"model": Tied()})


def test_unfinished_folders_are_not_checkpoints_and_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "step-9.tmp").mkdir()
    (tmp_path / "step-9.tmp" / "model.safetensors").write_bytes(b"half")
    assert checkpoint_steps(tmp_path) == []
    save(tmp_path, 3, Tied())
    assert [path.name for path in tmp_path.iterdir()] == ["step-3"]


def test_another_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1, Tied())
    with pytest.raises(InputError, match="belongs to another model"):
        load_checkpoint(tmp_path, {"model": nn.Linear(2, 2)})
    with pytest.raises(InputError, match=r"holds no generator\.safetensors"):
        load_checkpoint(tmp_path, {"generator": Tied()})


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    save(tmp_path, 1, Tied())
    broken = Tied()
    with torch.no_grad():
        broken.head.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"no longer finite.*step-1"):
        save(tmp_path, 2, broken)
    assert checkpoint_steps(tmp_path) == [1]


def test_full_disk_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, Tied())

    def refuse(path: Path, content: bytes) -> None:
        path.write_bytes(content[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "write_synced", refuse)
    with pytest.raises(InputError, match=r"No space left on device; .*step-1"):
        save(tmp_path, 2, Tied())
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    load_checkpoint(tmp_path, {"model": Tied()})
