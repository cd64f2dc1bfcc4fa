"""README is true: its code runs, its verbs and its files exist."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_its_code_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    # A process of its own: what it prints and the random numbers it draws are its own affair.
    for block in blocks:
        subprocess.run([sys.executable, "-W", "error", "-c", block], check=True, cwd=ROOT)


def test_its_verbs_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for verb in set(re.findall(r"(?:`|^    )make ([a-z]+)", README, re.M)):
        assert re.search(rf"^{verb}:", makefile, re.M), verb


def test_its_links_lead_somewhere() -> None:
    for page in ROOT.glob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
