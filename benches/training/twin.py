"""GANs beside the same in plain PyTorch, and the mission's with the example's faults.

FUSEWIRE_DATA=... python -m benches.training.twin --only mlp-non_saturating --steps 5000

Scores of one network differ from seed to seed; `--seeds 3` says by how much. With `--paired` both
sides begin from equal weights and draw equal noise, so that they differ by rounding alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benches.training.fashion import configurations
from benches.training.plain import Twin
from benches.training.stages import Record
from fusewire.models.gan import Draws
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import SampleFormat, Samples, load_samples
from fusewire.training.adversarial.moves import discriminator_move, generator_move
from fusewire.training.adversarial.players import Players
from fusewire.training.evaluation.features import train_features
from fusewire.training.evaluation.report import compare
from fusewire.training.order import ShuffledOrder
from fusewire.training.processes import Processes

_ROUND = 50
_MISSION = "mlp-non_saturating"


class Ours:
    """The moves of our loop, without log and checkpoints."""

    def __init__(self, config: GanConfig, form: SampleFormat) -> None:
        self.config = config
        self.players = Players(config, form, Processes(config.device))

    def step(self, batches: list[Tensor], number: int) -> None:
        """One update of the generator and of the mean, and one of the discriminator per batch."""
        config, players = self.config, self.players
        draws = Draws(config.seed, number, config.batch, device=players.processes.device)
        for index, real in enumerate(batches):
            discriminator_move(config, players, real, None, draws, number * len(batches) + index)
        generator_move(config, players, batches[-1], None, draws)
        players.update_average(config.average_decay, number + 1)


def pair(ours: Ours, plain: Twin) -> None:
    """Lets the twin begin from our weights and draw our noise."""
    players, config = ours.players, ours.config
    for mine, theirs in [
        (players.generator, plain.generator),
        (players.discriminator, plain.discriminator),
        (players.average, plain.average),
    ]:
        renamed = zip(theirs.state_dict(), mine.state_dict().values(), strict=True)
        theirs.load_state_dict(dict(renamed))

    def noise() -> Iterator[Tensor]:
        for step in itertools.count():
            draws = Draws(config.seed, step, config.batch, device=players.processes.device)
            for _ in range(config.discriminator_steps + 1):
                yield draws.normal(players.generator.noise_size)

    drawn = noise()
    plain.noise = lambda _count: next(drawn)  # type: ignore[method-assign]


def main() -> None:
    configs = configurations()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(configs), default=[_MISSION])
    parser.add_argument("--steps", type=int, default=5000, help="of each side, in turns")
    parser.add_argument("--seeds", type=int, default=1, help="how often, from other weights")
    parser.add_argument("--paired", action="store_true", help="from equal weights and noise")
    parser.add_argument("--threads", type=int, help="of PyTorch; by default as our loop has them")
    parser.add_argument("--count", type=int, default=5000, help="samples to score; 0 for none")
    parser.add_argument("--runs", type=Path, default=Path("runs/shown"), help="for the classifier")
    parser.add_argument("--record", type=Path, help="file to write; by default in benches/record")
    parser.add_argument("--device", default="cpu", help="where the steps are made")
    options = parser.parse_args()
    record = Record("twin", options.record)
    for name in options.only:
        for seed in range(options.seeds):
            told = {"run": name, "seed": seed, "steps": options.steps, "paired": options.paired}
            if not record.has(**told):
                config = dataclasses.replace(configs[name], device=options.device, seed=seed)
                _beside(name, config, record, options)


def _beside(name: str, config: GanConfig, record: Record, options: argparse.Namespace) -> None:
    if options.threads or config.model.flat:
        torch.set_num_threads(options.threads or 1)  # as our loop does for networks of this size
    samples = load_samples(config.data, config.model.head)
    order = ShuffledOrder(len(samples), config.batch, config.seed)
    ours, twin = Ours(config, samples.format), Twin(config, samples.format)
    if options.paired:
        pair(ours, twin)
    rivals: dict[str, Ours | Twin] = {"ours": ours, "plain": twin}
    if name == _MISSION:
        rivals["faulty"] = Twin(config, samples.format, faulty=True)
    seconds: dict[str, list[float]] = {side: [] for side in rivals}
    updates = config.discriminator_steps
    for first in range(0, options.steps, _ROUND):
        for side, rival in rivals.items():  # in turns, so that all meet the same machine
            start = time.perf_counter()
            for step in range(first, min(first + _ROUND, options.steps)):
                numbers = range(step * updates, (step + 1) * updates)
                rows = [torch.from_numpy(order.batch(number)) for number in numbers]
                rival.step([samples.at(each).to(config.device) for each in rows], step)
            seconds[side].append((time.perf_counter() - start) / (step + 1 - first))
    for side, rival in rivals.items():
        took = statistics.median(seconds[side])
        row = {"run": name, "seed": config.seed, "side": side, "steps": options.steps}
        row |= {"device": options.device, "threads": torch.get_num_threads()}
        row |= {"paired": options.paired}
        # Neighbouring turns meet the same machine, whose speed drifts over the whole run.
        beside = zip(seconds["plain"], seconds[side], strict=True)
        row |= {
            "steps_per_second": 1 / took,
            "times_as_fast_as_plain": statistics.median(plain / own for plain, own in beside),
        }
        scores = _score(rival, samples, options.count, options.runs) if options.count else {}
        record.add(row | scores)


def _score(rival: Ours | Twin, samples: Samples, count: int, keep: Path) -> dict[str, float]:
    assert samples.labels is not None
    real = samples.at(torch.arange(len(samples)))
    features = train_features(real, samples.labels, keep=keep)
    print(f"features: {features}; {count} real and {count} generated samples; no resizing")
    chosen = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:count]
    average = rival.players.average if isinstance(rival, Ours) else rival.average
    source = torch.Generator().manual_seed(1)
    noise = torch.randn(count, rival.config.model.noise_size, generator=source)
    with torch.inference_mode():
        fake = average(noise.to(rival.config.device)).cpu()
    return compare(features.net.features(real[chosen]), features.net.features(fake))


if __name__ == "__main__":
    main()
