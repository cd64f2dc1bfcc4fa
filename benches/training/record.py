"""A record on disk that grows arm by arm, so that a long comparison can be stopped and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benches.machine import machine
from fusewire.training.run_directory import RunResult


class Record:
    """Results by name; what is there already is not computed again.

    Args:
        path: the JSON file, made with the first result.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.results: dict[str, Any] = {}
        if path.exists():
            self.results = json.loads(path.read_text())["results"]

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """The result of that name, computed and written down where it is missing."""
        if name not in self.results:
            self.results[name] = compute()
            content = {"machine": machine(), "results": self.results}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"{name}: {json.dumps(self.results[name])}", flush=True)
        return self.results[name]


def whole(result: RunResult) -> RunResult:
    """The result of a run, if no signal has ended it; else the command ends, to be called again."""
    if result.stopped_early:
        raise SystemExit(130)
    return result
