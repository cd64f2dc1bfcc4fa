"""One move of each player, read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fusewire.models.gan import Draws, SoftmaxSampling, augment
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
    critic = _critic(config, players.shared_discriminator, labels, draws)
    due = [penalty for penalty in config.penalties if penalty.is_due(step)]
    real = real.requires_grad_(any(penalty.differentiates("real") for penalty in due))
    fake = fake.requires_grad_(any(penalty.differentiates("fake") for penalty in due))

    real_logits, fake_logits = critic(real), critic(fake)
    loss = players.loss.discriminator(real_logits, fake_logits)
    total = loss
    seen = {"real": (real, real_logits), "fake": (fake, fake_logits)}
    for penalty in due:
        # In one backward pass with the loss: gradients are averaged over processes once.
        total = total + penalty.term(critic, seen, draws)
    players.discriminator_optimizer.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    players.discriminator_optimizer.step()
    if config.weight_clip is not None:
        with torch.no_grad():
            for weight in players.discriminator_weights:
                weight.clamp_(-config.weight_clip, config.weight_clip)
    return loss.detach(), real_logits.detach()


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
    critic = _critic(config, players.discriminator, labels, draws)
    fake, values = players.generate(draws.normal(players.generator.noise_size), labels)
    if config.estimator == "reinforce":
        loss, fake_logits = _score_function_loss(players, critic, fake, values, real)
    else:
        fake_logits = critic(fake)
        loss = players.loss.generator(fake_logits, _real_logits(players, critic, real))
    players.generator_optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    players.generator_optimizer.step()
    for weight in players.discriminator_weights:
        weight.requires_grad_(True)
    return loss.detach(), fake_logits.detach()


def _score_function_loss(
    players: Players,
    critic: Callable[[Tensor], Tensor],
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
        fake_logits = critic(fake)
        real_logits = _real_logits(players, critic, real)
        logits = [fake_logits[:, None]] + ([] if real_logits is None else [real_logits[:, None]])
        rewards = -torch.vmap(players.loss.generator)(*logits)
        advantages = rewards - players.baseline.mean
    loss = -(advantages * head.log_probability(values, fake)).mean()
    players.baseline.update(players.processes.mean({"reward": rewards.mean()})["reward"])
    return loss, fake_logits


def _critic(
    config: GanConfig,
    discriminator: torch.nn.Module,
    labels: Tensor | None,
    draws: Draws,
) -> Callable[[Tensor], Tensor]:
    """The discriminator on samples that are changed at random before."""

    def look(samples: Tensor) -> Tensor:
        logits: Tensor = discriminator(augment(samples, config.augmentations, draws), labels)
        return logits

    return look


def _real_logits(
    players: Players, critic: Callable[[Tensor], Tensor], real: Tensor
) -> Tensor | None:
    if not players.loss.pairs:
        return None
    with torch.no_grad():
        return critic(real)
