"""``fusewire tokenize``."""

from __future__ import annotations

from fusewire.cli.arguments import Tokenize
from fusewire.cli.language_arguments import refuse_needless_size
from fusewire.recipes.tokens import tokenize


def run(command: Tokenize) -> int:
    """Writes a file of tokens and says how many it holds."""
    refuse_needless_size(command.tokenizer, command.vocab_size)
    size = {} if command.vocab_size is None else {"vocab_size": command.vocab_size}
    count = tokenize(command.data, command.out, command.tokenizer, **size)
    print(f"{command.out}  {count} tokens")
    return 0
