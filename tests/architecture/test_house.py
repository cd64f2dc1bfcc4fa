"""The rules of the house that a machine can check: arrows, file length, names, unsafe code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "fusewire"

# Each room may import from the rooms to its left.
ROOMS = ["errors", "config", "_native", "ops", "nn", "models", "training", "recipes", "cli"]
# Rooms beside the line, and the only rooms of the package that may import them.
SIDE_ROOMS = {"data": {"data", "training", "recipes"}, "dropin": {"dropin"}}
# What the side rooms themselves may import.
SIDE_IMPORTS = {"data": {"data", "errors"}, "dropin": {"dropin", "errors", "_native", "ops", "nn"}}

LONGEST_FILE = 400
LONGER_WITH_REASON: dict[str, str] = {}

# Where unsafe Rust may live.
UNSAFE_HOMES = [
    "rust/simd/src/",
    "rust/kernels/src/gemm/",
    "rust/kernels/src/parallel",
    "rust/kernels/src/scratch.rs",
    "rust/kernels/src/view.rs",
    "rust/bindings/src/array/",
    "rust/bindings/src/torch_abi/",
]


def sources(suffix: str, *folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob(f"*{suffix}"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py").removesuffix(".pyi")


def imported_rooms(path: Path) -> Iterator[str]:
    """The rooms of the package that a file imports, wherever in the file the import stands."""
    package = ["fusewire", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            names = [".".join([*module, alias.name]) for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "fusewire" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize(
    "path", list(sources(".py", "python")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    if room.startswith("__"):
        pytest.skip("the contents page and the entry point name every room")
    for imported in imported_rooms(path):
        if room in SIDE_IMPORTS:
            allowed = imported in SIDE_IMPORTS[room]
        elif imported in SIDE_ROOMS:
            allowed = room in SIDE_ROOMS[imported]
        elif imported in ROOMS:
            allowed = ROOMS.index(imported) <= ROOMS.index(room)
        else:
            allowed = True  # A name that the contents page offers.
        assert allowed, f"{path.relative_to(ROOT)} ({room}) must not import {imported}"


def test_rust_crates_depend_one_way() -> None:
    arrows = {"simd": set(), "kernels": {"simd"}, "bindings": {"simd", "kernels"}}
    for crate, allowed in arrows.items():
        manifest = (ROOT / "rust" / crate / "Cargo.toml").read_text()
        dependencies = manifest.split("[dependencies]")[-1].split("\n[")[0]
        if "[dependencies]" in manifest:
            assert set(re.findall(r"^fusewire-(\w+)", dependencies, re.M)) == allowed
        others = set(re.findall(r"^(?!fusewire)([\w-]+)", dependencies, re.M))
        assert crate == "bindings" or "[dependencies]" not in manifest or not others, (
            f"{crate} needs no other crate"
        )


def test_every_room_is_known() -> None:
    rooms = {room_of(path) for path in sources(".py", "python")}
    assert rooms <= {*ROOMS, *SIDE_ROOMS, "__init__", "__main__"}


def test_files_stay_short() -> None:
    files = [*sources(".py", "python", "tests", "benches"), *sources(".rs", "rust", "benches")]
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files
        if (lines := len(path.read_text().splitlines())) > LONGEST_FILE
    }
    assert long.keys() == LONGER_WITH_REASON.keys(), long


def test_no_drawer_for_odds_and_ends() -> None:
    tracked = [*sources("", "python", "rust", "tests", "benches")]
    for path in tracked:
        assert path.stem not in {"utils", "util", "common", "misc", "helpers"}, path


def test_unsafe_rust_stays_in_its_homes() -> None:
    for path in sources(".rs", "rust"):
        name = str(path.relative_to(ROOT))
        if re.search(r"\bunsafe\b(?!_)", path.read_text()):
            assert any(name.startswith(home) for home in UNSAFE_HOMES), name


def test_nothing_is_left_to_do() -> None:
    words = "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX"])
    for path in [*sources(".py", "python", "tests", "benches"), *sources(".rs", "rust")]:
        found = re.search(rf"\b({words})\b", path.read_text())
        assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_no_file_is_unpickled() -> None:
    for path in sources(".py", "python"):
        text = path.read_text()
        assert not re.search(r"^\s*(import|from) pickle", text, re.M), path
        assert "allow_pickle=True" not in text, path
        for call in re.findall(r"(?<!safetensors\.)torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, path
