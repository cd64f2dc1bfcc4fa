"""``fusewire sample``."""

from __future__ import annotations

import sys
from pathlib import Path

from fusewire.cli.arguments import Sample
from fusewire.errors import InputError
from fusewire.training import adversarial, sequence
from fusewire.training.run_directory import RunDirectory
from fusewire.training.sequence_config import SamplingConfig


def run(command: Sample) -> int:
    """Draws from a run of either kind."""
    if RunDirectory.open(command.run).kind == sequence.KIND:
        _sample_text(command)
    else:
        _sample_images(command)
    return 0


def _sample_text(command: Sample) -> None:
    asked = {
        "prompt": command.prompt,
        "length": command.length,
        "temperature": command.temperature,
        "top_k": command.top_k,
        "count": command.count,
        "seed": command.seed,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    text = sequence.sample(command.run, SamplingConfig(**given))  # type: ignore[arg-type]
    if command.out is None:
        sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.flush()
        return
    try:
        command.out.write_text(text, encoding="utf-8")
    except OSError as failure:
        raise InputError(f"cannot write {command.out}: {failure.strerror or failure}") from None
    print(command.out)


def _sample_images(command: Sample) -> None:
    for name in ("prompt", "length", "temperature", "top_k"):
        if getattr(command, name) is not None:
            option = "--" + name.replace("_", "-")
            raise InputError(
                f"{option} is for language models; {command.run} is a GAN, leave it out"
            )
    output: Path = command.out or command.run / f"samples-{command.seed}.png"
    count = {} if command.count is None else {"count": command.count}
    print(adversarial.sample(command.run, output, seed=command.seed, **count))
