"""``fusewire sample``."""

from __future__ import annotations

import sys

from fusewire.cli.arguments import Sample
from fusewire.errors import InputError
from fusewire.training.adversarial import pictures, samples
from fusewire.training.run_directory import RunDirectory
from fusewire.training.sequence import language
from fusewire.training.sequence.config import SamplingConfig

_FOR_TEXT = ("prompt", "length", "temperature", "top_k")
_FOR_GANS = ("show",)


def run(command: Sample) -> int:
    """Draws from a run of either kind."""
    if RunDirectory.open(command.run).kind == language.KIND:
        _refuse_options(command, _FOR_GANS, "GANs", "a language model")
        _sample_text(command)
    else:
        _refuse_options(command, _FOR_TEXT, "language models", "a GAN")
        _sample_gan(command)
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
    text = language.sample(command.run, SamplingConfig(**given))  # type: ignore[arg-type]
    if command.out is None:
        sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.flush()
        return
    try:
        command.out.write_text(text, encoding="utf-8")
    except OSError as failure:
        raise InputError(f"cannot write {command.out}: {failure.strerror or failure}") from None
    print(command.out)


def _sample_gan(command: Sample) -> None:
    count = {} if command.count is None else {"count": command.count}
    if command.show is None:
        print(samples.sample(command.run, command.out, seed=command.seed, **count))
        return
    suffix = ".gif" if command.show == "film" else samples.suffix_of(command.run)
    out = command.out or command.run / f"{command.show}-{command.seed}{suffix}"
    if command.show == "film":
        print(pictures.film(command.run, out))
    elif command.show == "interpolation":
        print(pictures.interpolation(command.run, out, seed=command.seed, **count))
    else:
        print(pictures.class_rows(command.run, out, seed=command.seed, **count))


def _refuse_options(command: Sample, names: tuple[str, ...], of: str, kind: str) -> None:
    for name in names:
        if getattr(command, name) is not None:
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} is for {of}; {command.run} is {kind}, leave it out")
