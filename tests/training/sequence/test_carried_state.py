"""What a recurrent model remembers from batch to batch."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from fusewire.errors import InputError
from fusewire.models.language import (
    Recurrent,
    RecurrentConfig,
    RecurrentState,
    TransformerConfig,
)
from fusewire.training.metrics import read_metrics
from fusewire.training.sequence import language, runs
from fusewire.training.sequence.config import LanguageConfig
from fusewire.training.sequence.language import LanguageTask, build_model
from fusewire.training.sequence.learner import CarriedState, decaying_groups
from fusewire.training.sequence.parts import Part


def parts_of(state: RecurrentState) -> tuple[torch.Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_carried_state_is_whole_and_without_history(cell: str) -> None:
    model = Recurrent(RecurrentConfig(cell, embed_dim=8, hidden_size=8), vocab_size=5)
    carried = CarriedState(model, batch=3)
    tokens = torch.randint(5, (3, 10))
    _, state = model(tokens[:, :6])
    carried.set(slice(0, 3), state)

    kept = carried.get(slice(0, 3))
    parts = parts_of(kept)
    assert len(parts) == (2 if cell == "lstm" else 1)
    for part, original in zip(parts, parts_of(state), strict=True):
        assert torch.equal(part, original)
        assert part.grad_fn is None
        assert original.grad_fn is not None
    expected = model(tokens)[0][:, 6:]
    torch.testing.assert_close(model(tokens[:, 6:], kept)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_state_that_was_fetched_stays_as_it_is(batch: int) -> None:
    model = Recurrent(RecurrentConfig("gru", layers=1, embed_dim=8, hidden_size=8), vocab_size=5)
    carried = CarriedState(model, batch)
    fetched = carried.get(slice(0, batch))
    (state,) = parts_of(fetched)
    assert state.is_contiguous()
    carried.set(slice(0, batch), torch.ones_like(state))
    assert not state.any()


def test_a_transformer_carries_nothing() -> None:
    carried = CarriedState(
        build_model(TransformerConfig(context=16, layers=1, heads=2, embed_dim=16), 5), batch=3
    )
    carried.set(slice(0, 3), None)
    assert carried.get(slice(0, 3)) is None
    assert not carried.state_dict()


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_each_batch_goes_on_with_the_state_that_the_one_before_has_left(
    cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, loss = [], LanguageTask.loss

    def watch(task: LanguageTask, model: Recurrent, batch: Part, carried: RecurrentState) -> Any:
        assert batch.continues == (len(seen) % 5 > 0)  # the text is read in 5 steps
        before = [part.clone() for part in parts_of(carried)]  # it is overwritten
        expected = model(batch.inputs, carried if batch.continues else None)[1]
        found = loss(task, model, batch, carried)
        seen.append((before, parts_of(expected), parts_of(found[2])))
        return found

    monkeypatch.setattr(LanguageTask, "loss", watch)
    (tmp_path / "text.txt").write_text("the cat sat on the mat, and the dog ran. " * 10)
    config = LanguageConfig(
        model=RecurrentConfig(cell, embed_dim=8, hidden_size=8),
        data=tmp_path / "text.txt",
        steps=8,
        batch=4,
        context=18,
        learning_rate=0.01,
    )
    language.train(config, tmp_path / "run")
    assert len(seen) == 8
    for carried, expected, left in seen:
        assert len(carried) == len(left) == (2 if cell == "lstm" else 1)
        assert all(map(torch.equal, left, expected)), "the state is not read"
    for (_, _, left), (carried, _, _) in itertools.pairwise(seen):
        assert all(map(torch.equal, carried, left))
        assert all(part.any() for part in carried)


@pytest.mark.parametrize(("width", "rate"), [(64, 5e-3), (256, 1e-3)])
def test_states_without_a_bound_do_not_overflow(width: int, rate: float, tmp_path: Path) -> None:
    # Beginning as the identity and learning at the rate of all, the loss was 400 and 200,000.
    (tmp_path / "text.txt").write_text("the cat sat on the mat, and the dog ran to the log. " * 40)
    config = LanguageConfig(
        model=RecurrentConfig("relu", embed_dim=width, hidden_size=width),
        data=tmp_path / "text.txt",
        steps=60,
        batch=4,
        context=32,
        learning_rate=rate,
        warmup_steps=30,
    )
    language.train(config, tmp_path / "run")
    losses = [row["loss"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert max(losses) < 1.1 * losses[0]
    assert losses[-1] < 0.6 * losses[0]


def test_recurrent_weights_of_relu_learn_slowly() -> None:
    model = Recurrent(RecurrentConfig("relu", layers=2, embed_dim=8, hidden_size=8), vocab_size=5)
    groups = decaying_groups(model, weight_decay=0.1)
    scales = {id(each): group.get("scale", 1.0) for group in groups for each in group["params"]}
    assert len(scales) == len([*model.parameters()])
    for name, parameter in model.named_parameters():
        assert scales[id(parameter)] == (0.1 if "weight_hh" in name else 1.0)


def test_a_run_of_relu_layers_that_an_older_version_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 40)
    config = LanguageConfig(
        model=RecurrentConfig("relu", layers=1, embed_dim=8, hidden_size=8),
        data=text,
        steps=2,
        batch=2,
        context=8,
        validation_tokens=20,
    )

    def older(model: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
        first, second, slow = decaying_groups(model, weight_decay)
        return [{**first, "params": [*first["params"], *slow["params"]]}, second]

    with monkeypatch.context() as patch:
        patch.setattr(runs, "decaying_groups", older)
        language.train(config, tmp_path / "old")
    with pytest.raises(InputError, match=r"another version .* \[\d+, \d+\], .* --start of a new"):
        language.resume(tmp_path / "old", 4)
    started = dataclasses.replace(config, start=tmp_path / "old")
    assert language.train(started, tmp_path / "new").step == 2
