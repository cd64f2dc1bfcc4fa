"""``fusewire demo``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from fusewire.cli.arguments import Demo
from fusewire.cli.report import exit_code, free_path, print_results
from fusewire.recipes import gan, language
from fusewire.training.adversarial import loop as adversarial
from fusewire.training.run_directory import RunResult, refuse_unusable
from fusewire.training.sequence import language as language_training

_LINES_SHOWN = 12


def run(command: Demo) -> int:
    """Trains the GAN and both language models, one after another, and shows what they made."""
    out = command.out or free_path(Path("runs"), "demo")
    refuse_unusable(out)
    trainings: dict[str, Callable[[Path], RunResult]] = {
        "gan": lambda path: adversarial.train(gan.demo(), path),
        "transformer": lambda path: language_training.train(language.demo_transformer(), path),
        "lstm": lambda path: language_training.train(language.demo_lstm(), path),
    }
    results: list[RunResult] = []
    for name, train in trainings.items():
        results.append(train(out / name))
        if results[-1].stopped_early:
            break
    print_results(results)
    for result in results:
        _show_text(result)
    return exit_code(results[-1])


def _show_text(result: RunResult) -> None:
    text = result.made["samples"]
    if text.suffix != ".txt":
        return
    lines = text.read_text(encoding="utf-8").splitlines()[:_LINES_SHOWN]
    console = Console()
    console.rule(f"[bold]{result.path.name}[/bold] writes")
    console.print("\n".join(lines), markup=False, highlight=False)
