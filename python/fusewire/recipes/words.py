"""What trained word vectors are worth."""

from __future__ import annotations

from pathlib import Path

from fusewire.data.judgements import load_analogies, load_judgements
from fusewire.errors import InputError
from fusewire.training.embeddings import load


def held_against(path: Path, pairs: Path | None, analogies: Path | None) -> dict[str, float]:
    """Holds word vectors against people's judgements and analogies.

    Args:
        path: a run of embeddings, or a file of vectors.
        pairs: word pairs with judgements, such as WordSim-353 or SimLex-999.
        analogies: four words a line.

    Returns:
        ``similarity`` (Spearman's correlation) over ``pairs_known``, and ``analogies`` (the part
        solved) over ``analogies_known``.

    Raises:
        InputError: a file cannot be read, or none is given.
    """
    if pairs is None and analogies is None:
        raise InputError("give --data with word pairs, --analogies, or both")
    vectors = load(path)
    measured: dict[str, float] = {}
    if pairs is not None:
        agreement, known = vectors.agreement(load_judgements(pairs))
        measured |= {"similarity": agreement, "pairs_known": float(known)}
    if analogies is not None:
        solved, known = vectors.solved(load_analogies(analogies))
        measured |= {"analogies": solved, "analogies_known": float(known)}
    return measured
