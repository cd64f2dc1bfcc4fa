"""``fusewire resume``."""

from __future__ import annotations

from fusewire.cli.arguments import Resume
from fusewire.cli.kinds import trained_by
from fusewire.cli.report import exit_code, print_results


def run(command: Resume) -> int:
    """Continues a run of any kind and says what came out."""
    result = trained_by(command.run).resume(command.run, command.steps)
    print_results([result])
    return exit_code(result)
