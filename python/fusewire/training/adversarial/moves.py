"""One move of each player, read from top to bottom."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from fusewire.models.gan import (
    EVERYWHERE,
    NOWHERE,
    Critic,
    Draws,
    Judged,
    SoftmaxSampling,
)
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.players import Players


def discriminator_move(
    config: GanConfig,
    players: Players,
    real: Tensor,
    labels: Tensor | None,
    draws: Draws,
    step: int,
) -> tuple[Tensor, Tensor]:
    """Updates the discriminator on real samples and as many generated ones.

    Args:
        config: the run.
        players: both networks.
        real: samples of this process, (rows, *shape).
        labels: their classes, which the generator is asked for as well, (rows,).
        draws: random numbers of this step.
        step: counted from 0.

    Returns:
        The loss without penalties, and the logits of the real samples.
    """
    with torch.no_grad():  # the generator does not move now
        fake, _ = players.generate(draws.normal(players.generator.noise_size), labels)
    due = [penalty for penalty in config.penalties if penalty.is_due(step)]
    sloping = {at for at in ("real", "fake") if any(each.differentiates(at) for each in due)}
    critic = _critic(players.shared_judge, labels, draws)
    if players.judge.has_closed_form:
        seen = _judge_together(players, real, fake, labels, draws, sloping)
    else:
        given = {"real": real, "fake": fake}
        seen = {
            at: critic(samples, EVERYWHERE if at in sloping else NOWHERE)
            for at, samples in given.items()
        }
    loss = players.loss.discriminator(seen["real"].logits, seen["fake"].logits)
    total = loss
    for penalty in due:
        # In one backward pass with the loss: gradients are averaged over processes once.
        total = total + penalty.term(critic, seen, draws)
    players.discriminator_optimizer.zero_grad()
    # Samples that a penalty looks at may have a gradient too, but nobody wants that of the loss.
    torch.autograd.backward(total, inputs=players.discriminator_weights)
    players.discriminator_optimizer.move()
    if config.weight_clip is not None:
        with torch.no_grad():
            for weight in players.discriminator_weights:
                weight.clamp_(-config.weight_clip, config.weight_clip)
    return loss.detach(), seen["real"].logits.detach()


def generator_move(
    config: GanConfig,
    players: Players,
    real: Tensor,
    labels: Tensor | None,
    draws: Draws,
) -> tuple[Tensor, Tensor]:
    """Updates the generator against the discriminator as it stands.

    Args:
        config: the run.
        players: both networks.
        real: samples of this process, for a loss that compares with them.
        labels: classes to generate, (rows,).
        draws: random numbers of this step.

    Returns:
        The loss, and the logits of the generated samples.
    """
    for weight in players.discriminator_weights:
        weight.requires_grad_(False)
    critic = _critic(players.judge, labels, draws)
    fake, values = players.generate(draws.normal(players.generator.noise_size), labels)
    if config.estimator == "reinforce":
        loss, fake_logits = _score_function_loss(players, critic, fake, values, real)
    else:
        fake_logits = critic(fake, NOWHERE).logits
        loss = players.loss.generator(fake_logits, _real_logits(players, critic, real))
    players.generator_optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    players.generator_optimizer.move()
    for weight in players.discriminator_weights:
        weight.requires_grad_(True)
    return loss.detach(), fake_logits.detach()


def _critic(judge: torch.nn.Module, labels: Tensor | None, draws: Draws) -> Critic:
    """The discriminator on samples of one kind."""

    def look(samples: Tensor, sloping: slice) -> Judged:
        logits, slopes = judge(samples, labels, draws, sloping)
        return Judged(samples, logits, slopes if len(slopes) else None)

    return look


def _judge_together(
    players: Players,
    real: Tensor,
    fake: Tensor,
    labels: Tensor | None,
    draws: Draws,
    sloping: Collection[str],
) -> Mapping[str, Judged]:
    """Judges real and generated samples in one batch, where each is judged by itself.

    What a step of such networks takes is calls more than products. Slopes are computed where they
    are wanted alone.
    """
    kinds, count = ("real", "fake"), len(real)
    doubled = None if labels is None else torch.cat((labels, labels))
    places = [kinds.index(at) for at in sloping]
    rows = slice(min(places) * count, (max(places) + 1) * count) if places else NOWHERE
    logits, found = players.shared_judge(torch.cat((real, fake)), doubled, draws, rows)
    slopes = dict(zip(sorted(places), found.split(count), strict=False))
    parts = zip((real, fake), logits.split(count), strict=True)
    return {kinds[place]: Judged(*part, slopes.get(place)) for place, part in enumerate(parts)}


def _score_function_loss(
    players: Players,
    critic: Critic,
    fake: Tensor,
    values: Tensor,
    real: Tensor,
) -> tuple[Tensor, Tensor]:
    """REINFORCE: `-E (r - baseline) log p(x)` with the loss of each sample, negated, as reward r.

    Its gradient is that of the expected loss, though a draw has none.
    """
    head = players.generator.head
    assert isinstance(head, SoftmaxSampling)  # the configuration has been checked
    with torch.no_grad():
        fake_logits = critic(fake, NOWHERE).logits
        real_logits = _real_logits(players, critic, real)
        logits = [fake_logits[:, None]] + ([] if real_logits is None else [real_logits[:, None]])
        rewards = -torch.vmap(players.loss.generator)(*logits)
        advantages = rewards - players.baseline.mean
    loss = -(advantages * head.log_probability(values, fake)).mean()
    players.baseline.update(players.processes.mean({"reward": rewards.mean()})["reward"])
    return loss, fake_logits


def _real_logits(players: Players, critic: Critic, real: Tensor) -> Tensor | None:
    if not players.loss.pairs:
        return None
    with torch.no_grad():
        return critic(real, NOWHERE).logits
