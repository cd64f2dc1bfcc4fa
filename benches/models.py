"""What `fw.fuse(model)` gives whole models: `python -m benches.models` prints a table.

Each model is built twice with the same weights; PyTorch's and ours run in turns, and the ratio is
that of the medians. Both must agree before anything is timed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pack_padded_sequence
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

import fusewire as fw


class Contest(NamedTuple):
    """One model in two versions; a call runs it once and returns what must agree."""

    name: str
    theirs: Callable[[], torch.Tensor]
    ours: Callable[[], torch.Tensor]


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(1000, (batch, length), generator=torch.Generator().manual_seed(0))


def padding(batch: int, length: int) -> torch.Tensor:
    lengths = torch.linspace(length, length // 4, batch).long()
    return (torch.arange(length) < lengths[:, None]).long()


def with_ours(model: torch.nn.Module) -> torch.nn.Module:
    ours = copy.deepcopy(model)
    fw.fuse(ours)
    return ours


def encoder() -> Contest:
    """12 layers, 384 wide, 6 heads, batch 8 x 512, inference."""
    config = BertConfig(
        vocab_size=1000,
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1536,
    )
    model, x = BertModel(config).eval(), tokens(8, 512)

    def run(model: torch.nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            return model(x).last_hidden_state

    ours = with_ours(model)
    return Contest("BERT-like encoder", lambda: run(model), lambda: run(ours))


def trained(model: torch.nn.Module, **inputs: torch.Tensor) -> torch.Tensor:
    """The loss of one step of training, without the optimiser."""
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach()


def decoder() -> Contest:
    """6 layers, 384 wide, 6 heads, batch 4 x 1024, a training step."""
    dropped = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(vocab_size=1000, n_embd=384, n_layer=6, n_head=6, **dropped)
    model, x = GPT2LMHeadModel(config), tokens(4, 1024)
    ours = with_ours(model)
    return Contest(
        "GPT-like training step",
        lambda: trained(model, input_ids=x, labels=x),
        lambda: trained(ours, input_ids=x, labels=x),
    )


def grouped() -> Contest:
    """6 layers, 384 wide, 6 heads over 2, batch 4 x 1024 with padding, a training step."""
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
    )
    model, x, there = LlamaForCausalLM(config), tokens(4, 1024), padding(4, 1024)
    labels = x.masked_fill(there == 0, -100)
    inputs = {"input_ids": x, "attention_mask": there, "labels": labels}
    ours = with_ours(model)
    return Contest(
        "Llama-like, GQA, padding, training step",
        lambda: trained(model, **inputs),
        lambda: trained(ours, **inputs),
    )


class Tagger(torch.nn.Module):
    """Two bidirectional LSTM layers over packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(1000, 128)
        self.lstm = torch.nn.LSTM(128, 128, 2, batch_first=True, bidirectional=True)
        self.head = torch.nn.Linear(256, 20)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(
            self.embedding(x), lengths, batch_first=True, enforce_sorted=False
        )
        return self.head(self.lstm(packed)[0].data)


class Forecaster(torch.nn.Module):
    """Two GRU layers and the next value."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(8, 128, 2, batch_first=True)
        self.head = torch.nn.Linear(128, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(x)[0])


def recurrent(name: str, model: torch.nn.Module, *inputs: torch.Tensor) -> Contest:
    """A training step, without the optimiser."""
    ours = copy.deepcopy(model)
    fw.fuse(ours)

    def run(model: torch.nn.Module) -> torch.Tensor:
        model.zero_grad()
        loss = model(*inputs).square().mean()
        loss.backward()
        return loss.detach()

    return Contest(name, lambda: run(model), lambda: run(ours))


def contests() -> Iterator[Contest]:
    torch.manual_seed(0)
    yield encoder()
    yield decoder()
    yield grouped()
    lengths = torch.linspace(64, 8, 32).long()
    yield recurrent("nn.LSTM tagger, packed, training step", Tagger(), tokens(32, 64), lengths)
    yield recurrent("nn.GRU forecaster, training step", Forecaster(), torch.randn(32, 96, 8))


def measure(contest: Contest, rounds: int) -> str:
    torch.testing.assert_close(contest.ours(), contest.theirs(), rtol=1e-3, atol=1e-4)
    seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
    for _ in range(rounds):
        for side, run in (("theirs", contest.theirs), ("ours", contest.ours)):
            start = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - start)
    theirs, ours = (statistics.median(times) for times in seconds.values())
    return f"{contest.name:<42}{theirs * 1e3:>10.1f}{ours * 1e3:>10.1f}{theirs / ours:>8.2f}x"


def main() -> None:
    """Runs the contests whose names hold the given word."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a part of the names of the models to run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'model':<42}{'PyTorch ms':>10}{'ours ms':>10}{'gain':>9}")
    for contest in contests():
        if options.only in contest.name:
            print(measure(contest, options.rounds), flush=True)


if __name__ == "__main__":
    main()
