"""Both networks, their optimisers, and the running mean of the generator."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fusewire.errors import InputError
from fusewire.models.gan import Discriminator, Generator, Judge, SoftmaxSampling, make_loss
from fusewire.training.adam import Adam
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import SampleFormat
from fusewire.training.processes import Processes
from fusewire.training.seeds import RandomStreams


class Players:
    """Everything that a step changes.

    Args:
        config: the run.
        form: what samples are.
        processes: those of the run.
    """

    def __init__(self, config: GanConfig, form: SampleFormat, processes: Processes) -> None:
        self.processes, self.streams = processes, RandomStreams(config.seed)
        self.rows = processes.rows(config.batch)
        self.loss = make_loss(config.loss, config.real_target)
        self.generator = build_generator(config, form)
        self.discriminator = Discriminator(
            config.model, form.shape, self.generator.classes, config.conditioning or "concatenation"
        )
        # What averages gradients over the processes; the head learns nothing and stays outside.
        self.shared_trunk = processes.share(self.generator.trunk)
        self.judge = Judge(self.discriminator, config.augmentations)
        self.shared_judge = processes.share(self.judge)
        self.average = copy.deepcopy(self.generator).requires_grad_(False).eval()
        # Each optimiser holds the parameters of one player: a move changes nobody else's weights.
        self.generator_optimizer = Adam(
            self.generator.parameters(), config.generator_learning_rate, config.betas
        )
        self.discriminator_optimizer = Adam(
            self.discriminator.parameters(), config.discriminator_learning_rate, config.betas
        )
        # Walks through the modules at every step would take longer than what is done there.
        self.discriminator_weights = [*self.discriminator.parameters()]
        self._means, self._averaged = self._state(self.average), self._state(self.generator)
        self.rates = config.generator_learning_rate, config.discriminator_learning_rate
        self.baseline = Baseline().to(processes.device)
        self.streams.diverge(processes.rank)

    def generate(self, noise: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Samples, and the values that the head made them of."""
        latent, rest = self.generator.split(noise)
        values = self.shared_trunk(latent, labels)
        return self.generator.head(values, rest), values

    def update_average(self, decay: float, step: int) -> None:
        """Moves the running mean towards the generator as it is after a step, counted from 1."""
        # A short memory at first, so that the random start is soon forgotten.
        decay = min(decay, step / (9 + step))
        (means, kept), (weights, buffers) = self._means, self._averaged
        with torch.no_grad():
            torch._foreach_lerp_(means, weights, 1 - decay)
            for mean, buffer in zip(kept, buffers, strict=True):
                mean.copy_(buffer)

    @staticmethod
    def _state(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """What learns, and what only remembers."""
        return [*network.parameters()], [*network.buffers()]

    def set_rates(self, part: float) -> None:
        """Sets both learning rates to a part of those of the configuration."""
        both = self.generator_optimizer, self.discriminator_optimizer
        for optimizer, rate in zip(both, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * part

    def set_temperature(self, temperature: float) -> None:
        """Sets how soft the gradient of a discrete sample is."""
        if isinstance(self.generator.head, SoftmaxSampling):
            self.generator.head.temperature = temperature

    def models(self) -> Mapping[str, nn.Module]:
        """By name."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_average": self.average,
            "baseline": self.baseline,
        }

    def optimizers(self) -> Mapping[str, Optimizer]:
        """By name."""
        return {
            "generator": self.generator_optimizer,
            "discriminator": self.discriminator_optimizer,
        }


class Baseline(nn.Module):
    """The running mean of the reward that REINFORCE compares with, kept in checkpoints."""

    _decay = 0.9

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.mean: Tensor

    def update(self, reward: float) -> None:
        """Moves towards the mean reward of a batch."""
        self.mean.lerp_(torch.tensor(reward, device=self.mean.device), 1 - self._decay)


def build_generator(config: GanConfig, form: SampleFormat) -> Generator:
    """Makes a freshly initialised generator.

    Raises:
        InputError: the configuration does not fit the samples.
    """
    if config.augmentations and form.medium != "images":
        raise InputError(f"augmentations are for images, not for {form.medium}")
    classes = 0 if config.conditioning is None else form.require_classes()
    return Generator(config.model, form.shape, classes)
