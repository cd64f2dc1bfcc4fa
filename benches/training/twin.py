"""GANs beside the same in plain PyTorch, and the mission's with the example's faults.

FUSEWIRE_DATA=... python -m benches.training.twin --only mlp-non_saturating --steps 5000

Scores of one network differ from seed to seed; `--seeds 3` says by how much.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
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
from fusewire.training.adversarial.samples import draw
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


def main() -> None:
    configs = configurations()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(configs), default=[_MISSION])
    parser.add_argument("--steps", type=int, default=5000, help="of each side, in turns")
    parser.add_argument("--seeds", type=int, default=1, help="how often, from other weights")
    parser.add_argument("--count", type=int, default=5000, help="samples to score; 0 for none")
    parser.add_argument("--runs", type=Path, default=Path("runs/shown"), help="for the classifier")
    parser.add_argument("--record", type=Path, help="file to write; by default in benches/record")
    parser.add_argument("--device", default="cpu", help="where the steps are made")
    options = parser.parse_args()
    record = Record("twin", options.record)
    for name in options.only:
        for seed in range(options.seeds):
            if not record.has(run=name, seed=seed):
                config = dataclasses.replace(configs[name], device=options.device, seed=seed)
                _beside(name, config, record, options)


def _beside(name: str, config: GanConfig, record: Record, options: argparse.Namespace) -> None:
    if config.model.flat:
        torch.set_num_threads(1)  # as our loop does for networks of this size
    samples = load_samples(config.data, config.model.head)
    order = ShuffledOrder(len(samples), config.batch, config.seed)
    rivals: dict[str, Ours | Twin] = {
        "ours": Ours(config, samples.format),
        "plain": Twin(config, samples.format),
    }
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
    plain = statistics.median(seconds["plain"])
    for side, rival in rivals.items():
        took = statistics.median(seconds[side])
        row = {"run": name, "seed": config.seed, "side": side, "steps": options.steps}
        row |= {"device": options.device, "threads": torch.get_num_threads()}
        row |= {"steps_per_second": 1 / took, "times_as_fast_as_plain": plain / took}
        scores = _score(rival, samples, options.count, options.runs) if options.count else {}
        record.add(row | scores)


def _score(rival: Ours | Twin, samples: Samples, count: int, keep: Path) -> dict[str, float]:
    assert samples.labels is not None
    real = samples.at(torch.arange(len(samples)))
    features = train_features(real, samples.labels, keep=keep)
    print(f"features: {features}; {count} real and {count} generated samples; no resizing")
    chosen = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:count]
    if isinstance(rival, Ours):
        fake = draw(rival.players.average, count, seed=0)
    else:
        with torch.inference_mode():
            fake = rival.average(rival.noise(count)).cpu()
    return compare(features.net.features(real[chosen]), features.net.features(fake))


if __name__ == "__main__":
    main()
