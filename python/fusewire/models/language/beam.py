"""Beam search: the most probable continuation among several kept at each step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fusewire.models.language.generate import LanguageModel, evaluating, window_start
from fusewire.models.language.sampling import Sampling

_ALL = Sampling()


@torch.no_grad()
def beam_search(
    model: LanguageModel,
    prompt: Tensor,
    length: int,
    *,
    beams: int = 4,
    count: int = 1,
    end_token: int | None = None,
    length_penalty: float = 1.0,
    sampling: Sampling = _ALL,
    ends: Callable[[Tensor], bool] | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Finds continuations of high probability.

    .. math:: \mathrm{score}(y) = \log p(y \mid x) \, / \, |y|^{\mathrm{length\_penalty}}

    Args:
        model: as for `generate`.
        prompt: token ids, (batch, prompt_len).
        length: most tokens to add.
        beams: continuations kept at each step.
        count: continuations to return for each prompt, all different, the best first.
        end_token: ends a continuation; everything after it is ``end_token`` too.
        length_penalty: 0 compares whole probabilities, 1 those per token.
        sampling: its truncations leave out what they would not draw, its repetition penalty
            changes the probabilities; nothing is drawn, and its temperature has no effect.
        ends: whether a continuation, (added,), is finished; what comes after it has no meaning.

    Returns:
        Prompts and their best continuations, (batch * count, prompt_len + length), and their
        scores, (batch * count); −∞ where truncations have left fewer.

    Raises:
        ValueError: for an empty prompt, a length or number of beams below 1, or a count that is
            not from 1 to the number of beams.

    Example:
        >>> import torch
        >>> from fusewire.models.language import Recurrent, RecurrentConfig, beam_search
        >>> model = Recurrent(RecurrentConfig(embed_dim=8, hidden_size=8), vocab_size=10)
        >>> tokens, score = beam_search(model, torch.tensor([[1, 2]]), length=3, beams=2)
        >>> tokens.shape, score.shape
        (torch.Size([1, 5]), torch.Size([1]))
    """
    batch, prompt_len = prompt.shape
    if prompt_len < 1:
        raise ValueError("the prompt must hold at least one token, got none")
    if length < 1 or beams < 1:
        raise ValueError(f"length and beams must be at least 1, got {length} and {beams}")
    if not 1 <= count <= beams:
        raise ValueError(f"count must be from 1 to the number of beams, {beams}, got {count}")
    with evaluating(model):
        start = window_start(prompt_len, model.window)
        logits, state = model.begin(prompt[:, start:], None)
        # Every beam begins as a copy of the prompt; all but the first are impossible at first,
        # so that the first step takes the best tokens and not copies of one.
        rows = torch.arange(batch, device=prompt.device).repeat_interleave(beams)
        tokens, logits, state = prompt[rows], logits[rows], model.select(state, rows)
        scores = torch.full((batch, beams), -torch.inf, device=prompt.device)
        scores[:, 0] = 0.0
        lengths = torch.zeros_like(scores)
        ended = torch.zeros_like(scores, dtype=torch.bool)
        filler = 0 if end_token is None else end_token
        for end in range(prompt_len, prompt_len + length):
            if end > prompt_len:
                visible = window_start(end, model.window)
                if visible != start:
                    start = visible
                    logits, state = model.begin(tokens[:, start:], None)
                else:
                    following, state = model(tokens[:, -1:], state)
                    logits = following[:, -1]
            steps = _log_probabilities(logits.float(), tokens, sampling).view(batch, beams, -1)
            vocab_size = steps.shape[-1]
            # An ended beam goes on with one token, its end where there is one, at no cost.
            steps = steps.masked_fill(ended[..., None], -torch.inf)
            steps[..., filler].masked_fill_(ended, 0.0)
            candidates = scores[..., None] + steps
            grown = lengths + ~ended
            ranks = candidates / grown[..., None] ** length_penalty
            chosen = ranks.flatten(1).topk(beams).indices
            parents, drawn = chosen // vocab_size, chosen % vocab_size
            scores = candidates.flatten(1).gather(1, chosen)
            lengths, ended = grown.gather(1, parents), ended.gather(1, parents)
            if end_token is not None:
                ended = ended | (drawn == end_token)
            offsets = torch.arange(batch, device=prompt.device)[:, None] * beams
            rows = (parents + offsets).flatten()
            tokens = torch.cat([tokens[rows], drawn.flatten()[:, None]], dim=1)
            if ends is not None:
                stopped = [ends(row) for row in tokens[:, prompt_len:]]
                ended = ended | torch.tensor(stopped, device=prompt.device).view(batch, beams)
            state = model.select(state, rows)
            if bool((ended | (scores == -torch.inf)).all()):
                break
    final = scores / lengths**length_penalty
    best = final.topk(count, dim=1).indices  # in order
    rows = torch.arange(batch, device=prompt.device)[:, None]
    tokens = tokens.view(batch, beams, -1)[rows, best].flatten(0, 1)
    missing = prompt_len + length - tokens.shape[1]
    if missing:
        tokens = torch.cat([tokens, tokens.new_full((len(tokens), missing), filler)], dim=1)
    return tokens, final.gather(1, best).flatten()


def _log_probabilities(logits: Tensor, tokens: Tensor, sampling: Sampling) -> Tensor:
    if sampling.repetition_penalty != 1.0:
        seen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, tokens, True)
        logits = sampling.penalised(logits, seen)
    left_out = sampling.truncated(logits) == -torch.inf
    return logits.log_softmax(dim=-1).masked_fill(left_out, -torch.inf)
