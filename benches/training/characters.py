"""nanoGPT's character recipe and recurrent models of equal size, beside plain PyTorch twins.

    FUSEWIRE_DATA=... python -m benches.training.characters --out benches/record/characters.json

Ours and the twin start from the same weights and see the same batches; they take turns, a few steps
each, on the same cores. The first ten losses must agree to rounding.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benches.training.record import Record
from benches.training.twins import TwinRecurrent, TwinTransformer
from fusewire.data.corpus import load_corpus
from fusewire.data.folder import data_folder
from fusewire.data.text import ContiguousStreams, RandomWindows
from fusewire.models.language import Recurrent, RecurrentConfig, Transformer, TransformerConfig
from fusewire.training.adam import Adam
from fusewire.training.sequence.config import TrainingConfig
from fusewire.training.sequence.language import mean_loss
from fusewire.training.sequence.learner import decaying_groups

CONTEXT, BATCH = 64, 12
TURN = 20  # steps that one side makes before the other
SIZES: dict[str, TransformerConfig | RecurrentConfig] = {
    "transformer": TransformerConfig(CONTEXT, layers=4, heads=4, embed_dim=128, bias=False),
    # About 0.8 million weights each, as the Transformer.
    "lstm": RecurrentConfig("lstm", layers=1, embed_dim=304, hidden_size=304),
    "gru": RecurrentConfig("gru", layers=1, embed_dim=352, hidden_size=352),
    "rnn": RecurrentConfig("rnn", layers=1, embed_dim=576, hidden_size=576),
    "relu": RecurrentConfig("relu", layers=1, embed_dim=576, hidden_size=576),
}


class Side:
    """One of the two: a model, its optimiser, its losses and its time."""

    def __init__(
        self, model: nn.Module, batches: Any, schedule: TrainingConfig, optimizer: Any
    ) -> None:
        self.model, self.batches, self.schedule = model, batches, schedule
        groups = decaying_groups(model, schedule.weight_decay)
        self.optimizer = optimizer(groups, lr=schedule.learning_rate, betas=(0.9, 0.99))
        self.losses: list[float] = []
        self.turns: list[float] = []  # seconds per step of each
        self.state: Any = None

    def train(self, steps: int) -> None:
        started = time.perf_counter()
        for _ in range(steps):
            step = len(self.losses)
            batch = self.batches.at(step)
            for group in self.optimizer.param_groups:
                rate = self.schedule.learning_rate_at(step + 1)
                group["lr"] = rate * group.get("scale", 1.0)
            state = self.state if batch.continues else None
            logits, state = self.model(torch.from_numpy(batch.inputs), state)
            targets = torch.from_numpy(batch.targets)
            loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.gradient_clip)
            self.optimizer.step()
            self.state = _detached(state)
            self.losses.append(loss.item())
        self.turns.append((time.perf_counter() - started) / steps)


def _detached(state: Any) -> Any:
    if isinstance(state, tuple):
        return tuple(part.detach() for part in state)
    return None if state is None else state.detach()


def compare(kind: str, steps: int, seed: int) -> dict[str, Any]:
    corpus = load_corpus(data_folder("tinyshakespeare.txt"), "characters", CONTEXT)
    size = corpus.tokenizer.vocab_size
    sizes = SIZES[kind]
    torch.manual_seed(seed)
    batches: RandomWindows | ContiguousStreams
    ours: nn.Module
    if isinstance(sizes, TransformerConfig):
        ours, twin = Transformer(sizes, size), TwinTransformer(sizes, size)
        batches = RandomWindows(corpus.train, BATCH, CONTEXT, seed)
    else:
        ours, twin = Recurrent(sizes, size), TwinRecurrent(sizes, size)
        batches = ContiguousStreams(corpus.train, BATCH, CONTEXT)
    twin.load_state_dict(ours.state_dict())
    schedule = TrainingConfig(
        steps=steps, batch=BATCH, learning_rate=1e-3, warmup_steps=min(100, steps // 2)
    )
    adam = functools.partial(Adam, decoupled_weight_decay=True)  # as our loop has it
    plain = functools.partial(torch.optim.AdamW, fused=True)
    sides = {
        "ours": Side(ours, batches, schedule, adam),
        "twin": Side(twin, batches, schedule, plain),
    }
    while len(sides["twin"].losses) < steps:
        for side in sides.values():
            side.train(min(TURN, steps - len(side.losses)))
            time.sleep(0.01)  # PyTorch's threads spin for 5 ms after their last operator
    first = np.array([side.losses[:10] for side in sides.values()])
    ours.load_state_dict(sides["ours"].model.state_dict())
    losses = {}
    for name, side in sides.items():
        ours.load_state_dict(side.model.state_dict())
        segment = CONTEXT if isinstance(sizes, TransformerConfig) else 16 * CONTEXT
        losses[name] = mean_loss(ours, corpus.validation, segment)  # type: ignore[arg-type]
    # The median of turns: the machine may have been taken away during some of them.
    seconds = {name: statistics.median(side.turns) for name, side in sides.items()}
    return {
        "steps": steps,
        "weights": sum(weight.numel() for weight in ours.parameters()),
        "largest_difference_of_ten_losses": float(np.abs(first[0] - first[1]).max()),
        "validation_loss": losses,
        "threads": torch.get_num_threads(),
        "seconds_per_step": seconds,
        "ratio": seconds["twin"] / seconds["ours"],
        "tokens_per_second": BATCH * CONTEXT / seconds["ours"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benches/record/characters.json"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(SIZES), choices=list(SIZES))
    arguments = parser.parse_args()
    record = Record(arguments.out)
    for kind in arguments.models:
        for seed in range(arguments.seeds):
            name = f"{kind}, {arguments.steps} steps, seed {seed}"
            record.once(name, lambda kind=kind, seed=seed: compare(kind, arguments.steps, seed))


if __name__ == "__main__":
    main()
