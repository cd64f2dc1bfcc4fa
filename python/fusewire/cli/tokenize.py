"""``fusewire tokenize``."""

from __future__ import annotations

from fusewire.cli.arguments import Tokenize
from fusewire.recipes.tokens import tokenize


def run(command: Tokenize) -> int:
    """Writes a file of tokens and says how many it holds."""
    count = tokenize(command.data, command.out, command.tokenizer, command.vocab_size)
    print(f"{command.out}  {count} tokens")
    return 0
