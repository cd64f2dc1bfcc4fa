"""Text from a trained model: drawn or searched for, until it stops, all at once or as it comes."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusewire.data.tokenizers import ByteTokenizer, Tokenizer
from fusewire.errors import InputError
from fusewire.models.language import beam_search, stream
from fusewire.training.sequence.config import SamplingConfig

# Tokens of a prompt that decide how what follows is joined to it.
_JOINED = 16

_BETWEEN_TEXTS = "\n" + "-" * 72 + "\n"


def write_texts(model: Any, tokenizer: Tokenizer, sampling: SamplingConfig) -> str:
    """Draws texts, or finds the best, each beginning with the prompt, lines of dashes between."""
    prompt = sampling.prompt or tokenizer.start
    ids = encode_prompt(model, tokenizer, prompt)
    decode = _continuing(tokenizer, ids)
    ended = _stopped(decode, sampling.stop)
    if sampling.beams:
        tokens, scores = beam_search(
            model,
            ids,
            sampling.length,
            beams=sampling.beams,
            count=sampling.count,
            sampling=sampling.draws(),
            ends=lambda row: ended(row.cpu().numpy()),
        )
        drawn = tokens[scores > -torch.inf, ids.shape[1] :]
    else:
        columns = list(
            stream(
                model,
                ids.expand(sampling.count, -1),
                sampling.length,
                sampling.draws(),
                seed=sampling.seed,
                finished=lambda drawn: all(map(ended, drawn.cpu().numpy())),
            )
        )
        drawn = torch.stack(columns, dim=1)
    texts = [
        (prompt + cut_at(decode(row), sampling.stop)).strip("\n") for row in drawn.cpu().numpy()
    ]
    return _BETWEEN_TEXTS.join(texts) + "\n"


def stream_text(model: Any, tokenizer: Tokenizer, sampling: SamplingConfig) -> Iterator[str]:
    """Yields the parts of one text as they are drawn, the prompt first.

    What may become a stop string is held back until it is none.
    """
    prompt = sampling.prompt or tokenizer.start
    ids = encode_prompt(model, tokenizer, prompt)
    yield prompt.lstrip("\n")
    held = ""
    columns = stream(model, ids, sampling.length, sampling.draws(), seed=sampling.seed)
    for new in _incremental(tokenizer, ids, (int(column.item()) for column in columns)):
        held += new
        kept = cut_at(held, sampling.stop)
        if kept != held:
            yield kept
            return
        safe = len(held) - _begun(held, sampling.stop)
        if safe:
            yield held[:safe]
            held = held[safe:]
    yield held


def encode_prompt(model: Any, tokenizer: Tokenizer, prompt: str) -> Tensor:
    """Token ids of a prompt where the model is, (1, prompt_len).

    Raises:
        InputError: the prompt has no token.
    """
    ids = tokenizer.encode(prompt)
    if not len(ids):
        raise InputError(f"the prompt {prompt!r} has no token of this model; give some words")
    device = next(model.parameters()).device
    return torch.from_numpy(ids.astype("int64"))[None].to(device)


def cut_at(text: str, stops: tuple[str, ...]) -> str:
    """The text before the first of the stop strings."""
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(found)] if found else text


def _continuing(tokenizer: Tokenizer, prompt: Tensor) -> Callable[[NDArray[Any]], str]:
    """Decodes tokens as what follows a prompt: with the space, or the rest of a word, between."""
    last = prompt[0, -_JOINED:].cpu().numpy()
    known = len(tokenizer.decode(last))
    return lambda drawn: tokenizer.decode(np.concatenate([last, drawn]))[known:]


def _stopped(
    decode: Callable[[NDArray[Any]], str], stops: tuple[str, ...]
) -> Callable[[NDArray[Any]], bool]:
    def ended(row: NDArray[Any]) -> bool:
        text = decode(row) if stops else ""
        return any(stop in text for stop in stops)

    return ended


def _begun(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of a text may be the beginning of a stop string."""
    longest = max((len(stop) for stop in stops), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0


def _incremental(tokenizer: Tokenizer, prompt: Tensor, tokens: Iterator[int]) -> Iterator[str]:
    """Decodes one token after another.

    What is no whole character yet comes with the next token, and as U+FFFD where there is none.
    """
    if isinstance(tokenizer, ByteTokenizer):
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        yield from (decoder.decode(bytes([token])) for token in tokens)
        yield decoder.decode(b"", final=True)
        return
    whole = _continuing(tokenizer, prompt)
    drawn: list[int] = []
    text = shown = ""
    for token in tokens:
        drawn.append(token)
        text = whole(np.array(drawn))
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[len(shown) :]
            shown = text
    yield text[len(shown) :]
