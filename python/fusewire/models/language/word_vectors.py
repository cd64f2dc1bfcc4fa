"""Word vectors: neighbours, analogies, and how well they agree with people's judgement."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fusewire.config import config_from_json
from fusewire.errors import InputError
from fusewire.models.language.subwords import Subwords

Vectors = NDArray[np.float32]


class WordVectors:
    """A vocabulary with a vector for each word.

    Args:
        words: the vocabulary, the most frequent first.
        vectors: ``(words, dim)``.
        subwords: how words that are not in the vocabulary are put together, if they are.
        parts: the vectors of parts, ``(subwords.buckets, dim)``.

    Example:
        >>> import numpy as np
        >>> table = np.array([[1, 0], [0.9, 0.1], [0, 1]], dtype=np.float32)
        >>> vectors = WordVectors(["king", "queen", "apple"], table)
        >>> vectors.neighbours("king", count=1)[0][0]
        'queen'
    """

    def __init__(
        self,
        words: Sequence[str],
        vectors: Vectors,
        subwords: Subwords | None = None,
        parts: Vectors | None = None,
    ) -> None:
        if len(words) != len(vectors) or len(set(words)) != len(words):
            raise ValueError(f"expected {len(vectors)} different words, got {len(words)}")
        self.words = list(words)
        self.vectors = vectors
        self.subwords = subwords
        self.parts = parts
        self._places = {word: place for place, word in enumerate(self.words)}
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        self._directions = vectors / np.maximum(norms, 1e-12)

    def __contains__(self, word: str) -> bool:
        return word in self._places

    def vector(self, word: str) -> Vectors:
        """The vector of a word; of one that is not in the vocabulary the mean of its parts.

        Raises:
            InputError: the word is not in the vocabulary, and there are no parts.
        """
        if word in self._places:
            found: Vectors = self.vectors[self._places[word]]
            return found
        if self.subwords is None or self.parts is None or not len(self.subwords.rows(word)):
            raise InputError(f"{word!r} is not in the vocabulary")
        mean: Vectors = self.parts[self.subwords.rows(word)].mean(axis=0)
        return mean

    def similarity(self, first: str, second: str) -> float:
        """The cosine of the angle between two words' vectors."""
        return float(_direction(self.vector(first)) @ _direction(self.vector(second)))

    def neighbours(self, word: str, count: int = 10) -> list[tuple[str, float]]:
        """The words nearest to one, with their cosines, the nearest first."""
        return self._nearest(_direction(self.vector(word)), count, {word})

    def analogy(
        self, first: str, second: str, third: str, count: int = 1
    ) -> list[tuple[str, float]]:
        """What is to ``third`` as ``second`` is to ``first``: nearest to b − a + c (3CosAdd)."""
        a, b, c = (_direction(self.vector(word)) for word in (first, second, third))
        return self._nearest(_direction(b - a + c), count, {first, second, third})

    def agreement(self, judged: Iterable[tuple[str, str, float]]) -> tuple[float, int]:
        """Spearman's correlation of cosines with people's judgement of pairs.

        Args:
            judged: two words and how similar people find them.

        Returns:
            The correlation, and how many pairs it is over; others have an unknown word.
        """
        known = [row for row in judged if row[0] in self and row[1] in self]
        if len(known) < 2:
            return 0.0, len(known)
        cosines = np.array([self.similarity(first, second) for first, second, _ in known])
        people = np.array([judgement for _, _, judgement in known])
        return float(np.corrcoef(_ranks(cosines), _ranks(people))[0, 1]), len(known)

    def solved(self, questions: Iterable[tuple[str, str, str, str]]) -> tuple[float, int]:
        """The part of analogies whose answer is the nearest word.

        Args:
            questions: a, b, c and the answer d, in "a is to b as c is to d".

        Returns:
            The part, and how many questions it is of; others have an unknown word.
        """
        known = [row for row in questions if all(word in self for word in row)]
        right = 0
        for start in range(0, len(known), 256):
            chunk = known[start : start + 256]
            places = np.array([[self._places[word] for word in row] for row in chunk])
            a, b, c = (self._directions[places[:, column]] for column in range(3))
            scores = (b - a + c) @ self._directions.T
            np.put_along_axis(scores, places[:, :3], -np.inf, axis=1)
            right += int((scores.argmax(axis=1) == places[:, 3]).sum())
        return right / max(len(known), 1), len(known)

    def embedding(self, tokens: Sequence[str], dim: int | None = None, seed: int = 0) -> Vectors:
        """Vectors to start a model's embedding from.

        Known words get their own vector, scaled so that numbers have a mean square of 1 / dim;
        unknown ones are drawn from a normal distribution of that variance.

        Args:
            tokens: what the rows stand for; spaces around a token and its case do not matter.
            dim: width of the embedding, at least that of the vectors; they are followed by
                drawn numbers.
            seed: decides what is drawn.

        Returns:
            ``(tokens, dim)``.
        """
        own = self.vectors.shape[1]
        dim = own if dim is None else dim
        if dim < own:
            raise ValueError(f"dim must be at least that of the vectors, {own}, got {dim}")
        drawn = np.random.default_rng(seed).standard_normal((len(tokens), dim)) * dim**-0.5
        scale = dim**-0.5 / max(float(np.sqrt(np.square(self.vectors).mean())), 1e-12)
        for row, token in enumerate(tokens):
            word = next((form for form in (token, token.strip().lower()) if form in self), None)
            if word is not None:
                drawn[row, :own] = self.vectors[self._places[word]] * scale
        embedding: Vectors = drawn.astype(np.float32)
        return embedding

    def save(self, path: Path) -> None:
        """Writes one safetensors file.

        Raises:
            InputError: it cannot be written.
        """
        tensors = {"vectors": np.ascontiguousarray(self.vectors)}
        described: dict[str, object] = {"words": self.words}
        if self.subwords is not None and self.parts is not None:
            tensors["parts"] = np.ascontiguousarray(self.parts)
            described["subwords"] = asdict(self.subwords)
        try:
            safetensors.numpy.save_file(tensors, path, {"word_vectors": json.dumps(described)})
        except OSError as failure:
            raise InputError(f"cannot write {path}: {failure.strerror or failure}") from failure

    @classmethod
    def load(cls, path: Path) -> WordVectors:
        """Reads what ``save`` wrote.

        Raises:
            InputError: the file is missing or damaged.
        """
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                described = json.loads(file.metadata()["word_vectors"])
            tensors: Mapping[str, Vectors] = safetensors.numpy.load_file(path)
            parts, subwords = tensors.get("parts"), None
            if parts is not None:
                subwords = config_from_json(Subwords, described["subwords"], f"{path}: subwords")
            return cls(described["words"], tensors["vectors"], subwords, parts)
        except OSError as failure:
            raise InputError(f"cannot read {path}: {failure.strerror or failure}") from failure
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as damage:
            raise InputError(f"{path} holds no word vectors: {damage}") from damage

    def _nearest(
        self, direction: Vectors, count: int, without: set[str]
    ) -> list[tuple[str, float]]:
        cosines = self._directions @ direction
        for word in without & self._places.keys():
            cosines[self._places[word]] = -np.inf
        count = min(count, len(self.words) - len(without & self._places.keys()))
        order = np.argsort(-cosines, kind="stable")[:count]
        return [(self.words[place], float(cosines[place])) for place in order]


def _direction(vector: Vectors) -> Vectors:
    direction: Vectors = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return direction


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Places in rising order, equal values sharing the mean of theirs."""
    _, groups, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    ranks: NDArray[np.float64] = (ends - (sizes - 1) / 2)[groups]
    return ranks
