"""Makes the embedded samples from two Debian packages, byte for byte.

    python -m fusewire.data.samples.provenance           # writes them
    python -m fusewire.data.samples.provenance --check   # only compares

Needs `apt-get` and `dpkg-deb`; the packages' hashes are pinned below. Compressed files are compared
by content, because versions of zlib may compress the same bytes differently.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import re
import subprocess
import tempfile
import textwrap
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fusewire.data.images import load_images
from fusewire.data.samples import FASHION_IMAGES, FASHION_LABELS, JARGON_TEXT

_PACKAGES = {
    "dict-jargon=4.4.7-3.1": (
        "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1"  # of the .deb, SHA-256
    ),
    "dataset-fashion-mnist=0.0~git20200523.55506a9-1": (
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
    ),
}
_IMAGES_PER_CLASS = 200

_SHORTEST_ENTRY = 300  # characters; shorter ones are cross references more than prose

_PLAIN = str.maketrans(
    {
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{LEFT SINGLE QUOTATION MARK}": "'",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{EM DASH}": " - ",
        "\N{EN DASH}": "-",
        "\N{HORIZONTAL ELLIPSIS}": "...",
        "\N{NO-BREAK SPACE}": " ",
    }
)
# Headwords of sections ("    E"), and what dictfmt puts in front of the dictionary.
_SECTION = re.compile(r"[A-Z]")
_PREFACE = re.compile(r"00-?database")


def main() -> None:
    """Makes both samples, or compares them with those in the package."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for package, expected in _PACKAGES.items():
            _fetch(root, package, expected)
        share = root / "usr" / "share"
        dictionary = gzip.decompress((share / "dictd" / "jargon.dict.dz").read_bytes())
        files = {JARGON_TEXT: clean_dictionary(dictionary.decode()).encode()}
        files |= _choose_images(share / "datasets" / "fashion-mnist")
    for path, content in files.items():
        if not check:
            # The time stamp of the archive would differ from day to day.
            packed = gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content
            path.write_bytes(packed)
        found = path.read_bytes()
        if (gzip.decompress(found) if path.suffix == ".gz" else found) != content:
            raise SystemExit(f"{path} is not what the packages give")
        print(f"{path.name}: {len(found):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


def clean_dictionary(text: str) -> str:
    """Turns the dictionary into prose: a headword, then its paragraphs, wrapped at 72 columns.

    Pronunciations, the shortest entries, braces of cross references, tables and drawings go;
    typographic signs become ASCII, so that a model has fewer than a hundred characters to learn.
    """
    entries = []
    for headword, paragraphs in _entries(text):
        prose = [paragraph for paragraph in map(_clean, paragraphs) if paragraph]
        if sum(map(len, prose)) >= _SHORTEST_ENTRY:
            wrapped = [textwrap.fill(text, 72, break_on_hyphens=False) for text in prose]
            entries.append("\n\n".join([headword, *wrapped]))
    return "\n\n\n".join(entries) + "\n"


def _entries(text: str) -> Iterator[tuple[str, list[list[str]]]]:
    headword = ""
    paragraphs: list[list[str]] = []
    for line in [*text.splitlines(), "end"]:
        if line and not line.startswith(" "):
            if headword.isascii() and not _PREFACE.match(headword):
                yield headword, paragraphs
            headword, paragraphs = line, []
        elif not line:
            paragraphs.append([])
        elif paragraphs:  # the line between headword and first paragraph is the pronunciation
            paragraphs[-1].append(line)


def _clean(lines: list[str]) -> str:
    # Deeper indentation than the body's four spaces marks tables, drawings and code.
    if any(line.startswith("     ") or "   " in line.strip() for line in lines):
        return ""
    text = " ".join(line.strip() for line in lines)
    # Line breaks after an opening and before a closing mark have become blanks.
    text = re.sub(r"(?<=[{“])\s+|\s+(?=[}”])", "", text).translate(_PLAIN)
    text = re.sub(r"[{}]", "", text)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    text = re.sub(r"\s+", " ", text).strip()
    letters = sum(character.isalpha() or character == " " for character in text)
    if _SECTION.fullmatch(text) or letters < 0.8 * len(text):
        return ""
    return text


def _choose_images(folder: Path) -> dict[Path, bytes]:
    images = load_images(folder / "train-images-idx3-ubyte.gz").pixels
    labels = np.frombuffer(
        gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8
    )
    first = [np.flatnonzero(labels == label)[:_IMAGES_PER_CLASS] for label in range(10)]
    chosen = np.sort(np.concatenate(first))
    return {
        FASHION_IMAGES: _idx(images[chosen, 0]),
        FASHION_LABELS: _idx(labels[chosen]),
    }


def _idx(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


def _fetch(root: Path, package: str, expected: str) -> None:
    subprocess.run(["apt-get", "download", "-qq", package], cwd=root, check=True)
    (archive,) = root.glob("*.deb")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != expected:
        raise SystemExit(f"{package}: expected sha256 {expected}, got {found}")
    subprocess.run(["dpkg-deb", "-x", archive, root], check=True)
    archive.unlink()


if __name__ == "__main__":
    main()
