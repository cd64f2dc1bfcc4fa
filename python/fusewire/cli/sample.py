"""``fusewire sample``."""

from __future__ import annotations

import sys

from fusewire.cli.arguments import Sample
from fusewire.cli.kinds import refuse_others_options
from fusewire.errors import InputError
from fusewire.training.adversarial import pictures, samples
from fusewire.training.run_directory import RunDirectory
from fusewire.training.sequence import language, seq2seq
from fusewire.training.sequence.config import SamplingConfig

_DRAWS = ("length", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "stop")
_OPTIONS = {
    **dict.fromkeys(_DRAWS, (language.KIND,)),
    **dict.fromkeys(("prompt", "beams"), (language.KIND, seq2seq.KIND)),
    **dict.fromkeys(("count", "seed"), (language.KIND, samples.KIND)),
    "show": (samples.KIND,),
}


def run(command: Sample) -> int:
    """Draws from a run of any kind that makes something."""
    kind = RunDirectory.open(command.run).kind
    if kind not in _MAKERS:
        raise InputError(f'{command.run} is a run of kind "{kind}", which makes no samples')
    refuse_others_options(command, kind, _OPTIONS)
    _MAKERS[kind](command)
    return 0


def _sample_text(command: Sample) -> None:
    names = (name for name, kinds in _OPTIONS.items() if language.KIND in kinds)
    asked = {name: getattr(command, name) for name in names}
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
    beams = {} if command.beams is None else {"beams": command.beams}
    _deliver(command, seq2seq.transduce(command.run, [command.prompt], **beams)[0] + "\n")


def _deliver(command: Sample, text: str) -> None:
    if command.out is None:
        _print(text)
        return
    try:
        command.out.write_text(text, encoding="utf-8")
    except OSError as failure:
        raise InputError(f"cannot write {command.out}: {failure.strerror or failure}") from None
    print(command.out)


# What a model of bytes writes may be a command to the terminal: control characters are shown by
# their pictures there, and those without one as unknown.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def _print(text: str) -> None:
    if sys.stdout.isatty():
        text = text.translate(_PICTURES)
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


_MAKERS = {language.KIND: _sample_text, seq2seq.KIND: _transduce, samples.KIND: _sample_gan}
