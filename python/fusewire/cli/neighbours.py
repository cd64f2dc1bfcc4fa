"""``fusewire neighbours``."""

from __future__ import annotations

from fusewire.cli.arguments import Neighbours
from fusewire.errors import InputError
from fusewire.training.embeddings import load


def run(command: Neighbours) -> int:
    """Prints words and their cosines, the nearest first."""
    vectors = load(command.run)
    words = [word.lower() for word in command.words]
    if command.count < 1:
        raise InputError(f"--count must be at least 1, got {command.count}")
    if len(words) == 1:
        found = vectors.neighbours(words[0], command.count)
    elif len(words) == 3:
        found = vectors.analogy(words[0], words[1], words[2], command.count)
    else:
        raise InputError(f"give one word, or three for an analogy, got {len(words)}")
    for word, cosine in found:
        print(f"{word:<20} {cosine:.3f}")
    return 0
