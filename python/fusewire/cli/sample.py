"""``fusewire sample``."""

from __future__ import annotations

import sys

from fusewire.cli.arguments import Sample
from fusewire.errors import InputError
from fusewire.training.adversarial import pictures, samples
from fusewire.training.run_directory import RunDirectory
from fusewire.training.sequence import language, seq2seq
from fusewire.training.sequence.config import SamplingConfig

_DRAWS = ("length", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "stop")
_FOR_TEXT = ("prompt", "beams", *_DRAWS)
_FOR_GANS = ("show",)


def run(command: Sample) -> int:
    """Draws from a run of any kind that makes something."""
    kind = RunDirectory.open(command.run).kind
    if kind == seq2seq.KIND:
        _refuse_options(command, (*_FOR_GANS, *_DRAWS), "other models", "an encoder-decoder")
        _transduce(command)
    elif kind in ("masked", "classifier", "embeddings"):
        raise InputError(f'{command.run} is a run of kind "{kind}", which makes no samples')
    elif kind == language.KIND:
        _refuse_options(command, _FOR_GANS, "GANs", "a language model")
        _sample_text(command)
    else:
        _refuse_options(command, _FOR_TEXT, "language models", "a GAN")
        _sample_gan(command)
    return 0


def _sample_text(command: Sample) -> None:
    asked = {name: getattr(command, name) for name in (*_FOR_TEXT, "count", "seed")}
    given = {name: value for name, value in asked.items() if value is not None}
    sampling = SamplingConfig(**given)
    if command.out is None and sampling.count == 1 and not sampling.beams:
        for part in language.stream_sample(command.run, sampling):  # as it comes
            _print(part)
        _print("\n")
    else:
        _deliver(command, language.sample(command.run, sampling))


def _transduce(command: Sample) -> None:
    if command.prompt is None:
        raise InputError("give --prompt with the text to read")
    _deliver(
        command, seq2seq.transduce(command.run, [command.prompt], command.beams or 4)[0] + "\n"
    )


def _deliver(command: Sample, text: str) -> None:
    if command.out is None:
        _print(text)
        return
    try:
        command.out.write_text(text, encoding="utf-8")
    except OSError as failure:
        raise InputError(f"cannot write {command.out}: {failure.strerror or failure}") from None
    print(command.out)


def _print(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8"))
    sys.stdout.flush()


def _sample_gan(command: Sample) -> None:
    count = {} if command.count is None else {"count": command.count}
    if command.show is None:
        print(samples.sample(command.run, command.out, seed=command.seed, **count))
        return
    form = samples.format_of(command.run)
    suffix = ".gif" if command.show == "film" else samples.suffix_of(form)
    out = command.out or command.run / f"{command.show}-{command.seed}{suffix}"
    if command.show == "film":
        print(pictures.film(command.run, out))
    elif command.show == "interpolation":
        print(pictures.interpolation(command.run, out, seed=command.seed, **count))
    else:
        print(pictures.class_rows(command.run, out, seed=command.seed, **count))
        print("  rows:", ", ".join(form.class_names))


def _refuse_options(command: Sample, names: tuple[str, ...], of: str, kind: str) -> None:
    for name in names:
        if getattr(command, name) not in (None, ()):
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} is for {of}; {command.run} is {kind}, leave it out")
