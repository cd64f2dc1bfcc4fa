"""A record on disk that grows arm by arm, so that a long comparison can be stopped and resumed."""

from __future__ import annotations

import json
import math
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
            self._path.write_text(strict_json(content) + "\n")
        print(f"{name}: {json.dumps(self.results[name])}", flush=True)
        return self.results[name]


def strict_json(content: Any) -> str:
    """The content as JSON that every reader takes: numbers that are none (NaN) become null."""
    return json.dumps(_without_nan(content), indent=1, allow_nan=False)


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _without_nan(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def whole(result: RunResult) -> RunResult:
    """The result of a run, if no signal has ended it; else the command ends, to be called again."""
    if result.stopped_early:
        raise SystemExit(130)
    return result
