"""Causal language models: tokens in, logits of the next token out, and a state between calls.

Both models have the same face: ``logits, state = model(tokens, state)``. The state is what the
model remembers of earlier tokens: keys and values in a Transformer, hidden states in a recurrent
network.
"""

from fusewire.models.language.generate import generate
from fusewire.models.language.recurrent import Recurrent, RecurrentConfig, RecurrentState
from fusewire.models.language.transformer import KeyValueCache, Transformer, TransformerConfig

__all__ = [
    "KeyValueCache",
    "Recurrent",
    "RecurrentConfig",
    "RecurrentState",
    "Transformer",
    "TransformerConfig",
    "generate",
]
