"""The examples run, are short, and do what they say (each asserts it)."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(path):
    if path.stem == "hugging_face_model":
        pytest.importorskip("transformers")
    assert len(path.read_text().splitlines()) <= 60
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
