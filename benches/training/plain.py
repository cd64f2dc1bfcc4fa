"""Adversarial training in plain PyTorch, as most people would write it: the rival of our loop."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, relu, softplus
from torch.nn.utils.parametrize import is_parametrized

from fusewire.models.gan import Discriminator, Generator, MlpConfig
from fusewire.nn import Linear
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import SampleFormat

_LEAK = 0.2


class Twin:
    """The same networks and settings as ours.

    Args:
        config: what ours runs with.
        form: what samples are.
        faulty: with the example's losses: a sigmoid in the network and another in the loss, and a
            generator that learns towards zeros.
    """

    def __init__(self, config: GanConfig, form: SampleFormat, faulty: bool = False) -> None:
        torch.manual_seed(config.seed)
        self.config, self.faulty = config, faulty
        self.generator, self.discriminator = _networks(config, form)
        self.generator.to(config.device)
        self.discriminator.to(config.device)
        self.average = copy.deepcopy(self.generator).eval()
        rates = config.generator_learning_rate, config.discriminator_learning_rate
        self.optimizers = [
            torch.optim.Adam(net.parameters(), rate, config.betas)
            for net, rate in zip((self.generator, self.discriminator), rates, strict=True)
        ]

    def judge(self, samples: Tensor) -> Tensor:
        """Logits, (batch,), or with the faults probabilities that are taken for them."""
        logits: Tensor = self.discriminator(samples).flatten()
        return logits.sigmoid() if self.faulty else logits

    def step(self, batches: list[Tensor], number: int) -> None:
        """One update of the generator and of the mean, and one of the discriminator per batch."""
        config, (for_generator, for_discriminator) = self.config, self.optimizers
        for real in batches:
            with torch.no_grad():
                fake = self.generator(self.noise(len(real)))
            at = [penalty.at for penalty in config.penalties]
            real.requires_grad_("real" in at)
            fake.requires_grad_("fake" in at)
            on_real, on_fake = self.judge(real), self.judge(fake)
            loss = self._discriminator_loss(on_real, on_fake)
            for penalty in config.penalties:
                if penalty.at == "between":
                    part = torch.rand(len(real), *(1,) * (real.ndim - 1), device=real.device)
                    mixed = (part * real + (1 - part) * fake).requires_grad_()
                    length = _gradient(self.judge(mixed), mixed).norm(dim=1)
                    loss = loss + penalty.weight * (length - 1).square().mean()
                else:
                    logits, seen = (on_real, real) if penalty.at == "real" else (on_fake, fake)
                    square = _gradient(logits, seen).square().sum(1)
                    loss = loss + penalty.weight * square.mean() / 2
            for_discriminator.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for_discriminator.step()

        real = batches[-1]
        on_fake = self.judge(self.generator(self.noise(len(real))))
        on_real = self.judge(real).detach() if config.loss == "relativistic" else on_fake
        for_generator.zero_grad()
        self._generator_loss(on_real, on_fake).backward()  # type: ignore[no-untyped-call]
        for_generator.step()
        decay = min(config.average_decay, (number + 1) / (number + 10))
        pairs = zip(self.average.parameters(), self.generator.parameters(), strict=True)
        with torch.no_grad():
            for mean, now in pairs:
                mean.lerp_(now, 1 - decay)
            for mean, now in zip(self.average.buffers(), self.generator.buffers(), strict=True):
                mean.copy_(now)

    def noise(self, count: int) -> Tensor:
        """Standard normal noise for so many samples."""
        return torch.randn(count, self.config.model.noise_size, device=self.config.device)

    def _discriminator_loss(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        if self.config.loss == "non_saturating":
            return _entropy(on_real, 1.0) + _entropy(on_fake, 0.0)
        if self.config.loss == "hinge":
            return relu(1 - on_real).mean() + relu(1 + on_fake).mean()
        if self.config.loss == "wasserstein":
            return on_fake.mean() - on_real.mean()
        return softplus(on_fake - on_real).mean()

    def _generator_loss(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        if self.config.loss == "non_saturating":
            return _entropy(on_fake, 0.0 if self.faulty else 1.0)
        if self.config.loss == "relativistic":
            return softplus(on_real - on_fake).mean()
        return -on_fake.mean()


class _Centred(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 2 * images.flatten(1) - 1


def _networks(config: GanConfig, form: SampleFormat) -> tuple[nn.Module, nn.Module]:
    if isinstance(config.model, MlpConfig):
        first, second = config.model.hidden_sizes
        numbers = torch.Size(form.shape).numel()
        generator = nn.Sequential(
            nn.Linear(config.model.noise_size, first), nn.ReLU(),
            nn.Linear(first, second), nn.ReLU(),
            nn.Linear(second, numbers), nn.Sigmoid(), nn.Unflatten(1, form.shape),
        )  # fmt: skip
        discriminator = nn.Sequential(
            _Centred(),
            nn.Linear(numbers, first), nn.LeakyReLU(_LEAK),
            nn.Linear(first, second), nn.LeakyReLU(_LEAK),
            nn.Linear(second, 1),
        )  # fmt: skip
        return generator, discriminator
    networks = Generator(config.model, form.shape), Discriminator(config.model, form.shape)
    for network in networks:
        for module in network.modules():
            if isinstance(module, Linear):  # the only layers of ours in networks of convolutions
                computed = {"weight": type(module).weight} if is_parametrized(module) else {}
                module.__class__ = type("Linear", (nn.Linear,), computed)
    return networks


def _entropy(logits: Tensor, target: float) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _gradient(logits: Tensor, samples: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(logits.sum(), samples, create_graph=True)
    return gradient.flatten(1)
