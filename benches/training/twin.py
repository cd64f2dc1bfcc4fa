"""The mission's GAN in plain PyTorch: the rival of ours, and with the example's faults.

python -m benches.training.twin --seconds 60
"""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benches.training.stages import Record, arguments
from fusewire.data.folder import data_folder
from fusewire.models.gan import Draws
from fusewire.recipes import gan
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import DataConfig, Samples, load_samples
from fusewire.training.adversarial.moves import discriminator_move, generator_move
from fusewire.training.adversarial.players import Players
from fusewire.training.evaluation.features import train_features
from fusewire.training.evaluation.report import compare
from fusewire.training.order import ShuffledOrder
from fusewire.training.processes import Processes

_ROUND = 100
_PIXELS = 784


class Twin:
    """The same networks and settings, as most people would write them.

    Args:
        config: what ours runs with; its only penalty, if any, is R1.
        faulty: with the example's losses: a sigmoid in the network and another in the loss, and a
            generator that learns towards zeros.
    """

    def __init__(self, config: GanConfig, faulty: bool = False) -> None:
        torch.manual_seed(config.seed)
        noise = config.model.noise_size
        self.config, self.faulty = config, faulty
        self.generator = nn.Sequential(
            nn.Linear(noise, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(),
            nn.Linear(128, _PIXELS), nn.Sigmoid(),
        )  # fmt: skip
        self.discriminator = nn.Sequential(
            nn.Linear(_PIXELS, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2),
            nn.Linear(128, 1),
        )  # fmt: skip
        self.average = copy.deepcopy(self.generator)
        rates = config.generator_learning_rate, config.discriminator_learning_rate
        self.optimizers = [
            torch.optim.Adam(net.parameters(), rate, config.betas)
            for net, rate in zip((self.generator, self.discriminator), rates, strict=True)
        ]

    def judge(self, images: Tensor) -> Tensor:
        """Logits, (batch, 1), or with the faults probabilities that are taken for them."""
        logits = self.discriminator(2 * images - 1)
        return logits.sigmoid() if self.faulty else logits

    def step(self, real: Tensor, number: int) -> None:
        """One update of each network and of the mean."""
        batch, noise = len(real), self.config.model.noise_size
        ones, zeros = torch.ones(batch, 1), torch.zeros(batch, 1)
        for_generator, for_discriminator = self.optimizers
        with torch.no_grad():
            fake = self.generator(torch.randn(batch, noise))
        real.requires_grad_(bool(self.config.penalties))
        on_real = self.judge(real)
        loss = binary_cross_entropy_with_logits(on_real, ones)
        loss = loss + binary_cross_entropy_with_logits(self.judge(fake), zeros)
        for penalty in self.config.penalties:
            (gradient,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            loss = loss + penalty.weight * gradient.square().sum(1).mean() / 2
        for_discriminator.zero_grad()
        loss.backward()
        for_discriminator.step()

        scores = self.judge(self.generator(torch.randn(batch, noise)))
        loss = binary_cross_entropy_with_logits(scores, zeros if self.faulty else ones)
        for_generator.zero_grad()
        loss.backward()
        for_generator.step()
        decay = min(self.config.average_decay, (number + 1) / (number + 10))
        with torch.no_grad():
            for mean, now in zip(
                self.average.parameters(), self.generator.parameters(), strict=True
            ):
                mean.lerp_(now, 1 - decay)


class Ours:
    """The two moves of our loop, without log and checkpoints."""

    def __init__(self, config: GanConfig, samples: Samples) -> None:
        self.config = config
        self.players = Players(config, samples.format, Processes("cpu"))

    def step(self, real: Tensor, number: int) -> None:
        """One update of each network and of the mean."""
        draws = Draws(self.config.seed, number, len(real))
        real = real.view(-1, 1, 28, 28)
        discriminator_move(self.config, self.players, real, None, draws, number)
        generator_move(self.config, self.players, real, None, draws)
        self.players.update_average(self.config.average_decay, number + 1)


def main() -> None:
    parser = arguments(__doc__, [60])
    parser.add_argument("--without-penalty", action="store_true", help="leave R1 out, of both")
    options = parser.parse_args()
    images = data_folder("fashion-mnist") / "train-images-idx3-ubyte.gz"
    config = gan.mlp(DataConfig("images", images))
    if options.without_penalty:
        config = dataclasses.replace(config, penalties=())
    samples = load_samples(config.data, config.model.head)
    torch.set_num_threads(1)  # as ours does for networks of this size
    name = "twin-without-penalty" if options.without_penalty else "twin"
    record = Record(name, options.record)
    rivals = {"ours": Ours(config, samples), "plain": Twin(config), "faulty": Twin(config, True)}
    order = ShuffledOrder(len(samples), config.batch, config.seed)
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    step = 0
    for stage in options.seconds:
        while sum(seconds["ours"]) < stage:
            for name, rival in rivals.items():  # in turns, so that all meet the same machine
                start = time.perf_counter()
                for number in range(step, step + _ROUND):
                    real = samples.at(torch.from_numpy(order.batch(number))).flatten(1)
                    rival.step(real, number)
                seconds[name].append(time.perf_counter() - start)
            step += _ROUND
        _score(record, rivals, seconds, samples, step, options.count, options.runs)


def _score(
    record: Record,
    rivals: dict[str, Twin | Ours],
    seconds: dict[str, list[float]],
    samples: Samples,
    step: int,
    count: int,
    keep: Path,
) -> None:
    assert samples.labels is not None
    real = samples.at(torch.arange(len(samples)))
    features = train_features(real, samples.labels, keep=keep)
    print(f"features: {features}; {count} real and {count} generated samples; no resizing")
    plain = statistics.median(seconds["plain"])
    for name, rival in rivals.items():
        with torch.no_grad():
            if isinstance(rival, Ours):
                average = rival.players.average
                fake = average(average.noise(count, torch.Generator().manual_seed(0)))
            else:
                fake = rival.average(torch.randn(count, rival.config.model.noise_size))
        seen = features.net.features(fake.view(-1, 1, 28, 28))
        median = statistics.median(seconds[name])
        row = {"run": name, "steps": step, "steps_per_second": _ROUND / median}
        row |= {"times_as_fast_as_plain": plain / median}
        record.add(row | compare(features.net.features(real[:count]), seen))


if __name__ == "__main__":
    main()
