"""The command ``fusewire``: what was typed becomes a recipe, and the recipe a run."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from fusewire.errors import InputError, ToldError

_TRAINING_PACKAGES = {
    "accelerate",
    "matplotlib",
    "PIL",
    "rich",
    "safetensors",
    "tokenizers",
    "torch",
    "torchmetrics",
    "tyro",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: what was typed after ``fusewire``; the process's own when not given.

    Returns:
        The exit code: 0, or 2 when something given cannot be used (one line on standard error
        says what to do), or 130 when Ctrl-C or SIGTERM ended a run, which is saved, or 141 when
        nobody reads the output any more, as after ``| head``.
    """
    _open_output()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _warn
            code = _run(arguments)
            sys.stdout.flush()
    except ToldError:
        return 2
    except InputError as refusal:
        return _refuse(str(refusal))
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in _TRAINING_PACKAGES:
            raise
        return _refuse(f"{package} is not installed: pip install 'fusewire[train]' brings it")
    except KeyboardInterrupt:
        return 130
    except OSError as failure:  # what concerns a file has been refused with its name
        if failure.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        # Python flushes once more at its end, which would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if failure.errno == errno.EPIPE:
            return 141
        return _refuse(f"cannot write the output: {failure.strerror}; make room")
    return code


def _open_output() -> None:
    if sys.stdout is None:  # closed by the caller, who wants the files only
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Where the terminal knows ASCII only, a "?" in the output must not end a run.
        sys.stdout.reconfigure(errors="replace")


def _run(arguments: Sequence[str] | None) -> int:
    # Imported here: without tyro there is one line to say, and --help must not wait for PyTorch.
    from fusewire.cli.arguments import parse

    command = parse(sys.argv[1:] if arguments is None else arguments)
    module = importlib.import_module(f"fusewire.cli.{type(command).__name__.lower()}")
    code: int = module.run(command)
    return code


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    # At once: a run of hours may be stopped for it, or end in another way.
    _say(f"warning: {message}")


def _refuse(reason: str) -> int:
    _say(reason)
    return 2


def _say(message: str) -> None:
    print("fusewire:", " ".join(message.split()), file=sys.stderr, flush=True)
