"""``fusewire resume``."""

from __future__ import annotations

from fusewire.cli.arguments import Resume
from fusewire.cli.report import exit_code, print_results
from fusewire.training import adversarial, sequence
from fusewire.training.run_directory import RunDirectory


def run(command: Resume) -> int:
    """Continues a run of either kind and says what came out."""
    kind = RunDirectory.open(command.run).kind
    result = (sequence if kind == sequence.KIND else adversarial).resume(command.run)
    print_results([result])
    return exit_code(result)
