"""Tokens per second beside transformers' ``generate``, on the same random weights.

python -m benches.training.generation --out benches/record/generation.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benches.training.record import Record
from fusewire.models.language import from_huggingface, generate

PROMPT = 16


def _models(kind: str) -> tuple[Any, Any]:
    import transformers

    torch.manual_seed(0)
    if kind == "gpt2":
        theirs = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_layer=6, n_embd=384, n_head=6, n_positions=512)
        )
    else:
        theirs = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=32000,
                hidden_size=384,
                intermediate_size=1024,
                num_hidden_layers=6,
                num_attention_heads=6,
                num_key_value_heads=2,
                max_position_embeddings=512,
            )
        )
    return theirs.eval(), from_huggingface(theirs.config.to_dict(), theirs.state_dict()).eval()


def compare(kind: str, batch: int, length: int, rounds: int) -> dict[str, Any]:
    theirs, ours = _models(kind)
    prompt = torch.randint(1, 1000, (batch, PROMPT), generator=torch.Generator().manual_seed(1))

    def by_theirs() -> torch.Tensor:
        return theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=length,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )

    def by_ours() -> torch.Tensor:
        return generate(ours, prompt, length, temperature=0.0)

    same = (by_theirs() == by_ours()).float().mean().item()
    uncached = generate(ours, prompt, length, temperature=0.0, cached=False)
    seconds: dict[str, list[float]] = {"ours": [], "transformers": []}
    contenders: dict[str, Callable[[], torch.Tensor]] = {
        "ours": by_ours,
        "transformers": by_theirs,
    }
    for _ in range(rounds):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    rates = {name: batch * length / statistics.median(times) for name, times in seconds.items()}
    return {
        "tokens_per_second": rates,
        "ratio": rates["ours"] / rates["transformers"],
        "equal_tokens": same,
        "cached_equals_uncached": bool(torch.equal(uncached, by_ours())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benches/record/generation.json"))
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    arguments = parser.parse_args()
    record = Record(arguments.out)
    for kind in ("gpt2", "llama"):
        for batch in arguments.batches:
            record.once(
                f"{kind}, batch {batch}, {arguments.length} tokens",
                lambda kind=kind, batch=batch: compare(
                    kind, batch, arguments.length, arguments.rounds
                ),
            )


if __name__ == "__main__":
    main()
