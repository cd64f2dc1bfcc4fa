"""Two processes are one process with the joined batch, and a run may change between them."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from fusewire.data.audio import wav_bytes
from fusewire.errors import InputError, ToldError
from fusewire.models.gan import ConvolutionalConfig, MlpConfig, Penalty
from fusewire.models.language import RecurrentConfig, TransformerConfig
from fusewire.training import checkpoint
from fusewire.training.adversarial import loop as adversarial
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import DataConfig
from fusewire.training.checkpoint import checkpoint_steps
from fusewire.training.metrics import MetricsLog, read_metrics
from fusewire.training.processes import Processes
from fusewire.training.sequence import language
from fusewire.training.sequence.config import LanguageConfig, SamplingConfig

STEPS = 4


def runs(folder: Path) -> dict[str, GanConfig | LanguageConfig]:
    """One run for each thing that processes could do apart."""
    dense = GanConfig(
        data=DataConfig("images", folder / "images.npz"),
        model=MlpConfig(noise_size=4, hidden_sizes=(8,)),
        steps=STEPS,
        batch=4,
        log_every=1,
        checkpoint_every=STEPS,
        threads=1,
    )
    convolutional = dataclasses.replace(
        dense, model=ConvolutionalConfig(noise_size=4, width=4, discriminator_norm="batch")
    )
    text = LanguageConfig(
        model=TransformerConfig(context=8, layers=2, heads=2, embed_dim=8),
        data=folder / "text.txt",
        steps=STEPS,
        batch=4,
        context=8,
        threads=1,
        save_every=STEPS,
        validate_every=STEPS,
        validation_tokens=50,
        sampling=SamplingConfig(length=3),
    )
    return {
        "r1-r2": dataclasses.replace(
            dense,
            loss="relativistic",
            penalties=(Penalty("real", 1.0), Penalty("fake", 1.0, finite_difference=0.1)),
            conditioning="projection",
            augmentations=("translation",),
        ),
        "gradient-penalty": dataclasses.replace(
            dense, loss="wasserstein", penalties=(Penalty("between", 10.0),), discriminator_steps=2
        ),
        "batch-norm": convolutional,
        "sound": dataclasses.replace(
            dense,
            data=DataConfig("audio", folder / "sound", length=256),
            model=ConvolutionalConfig(
                noise_size=4, width=4, generator_norm="none", phase_shuffle=2
            ),
            penalties=(Penalty("real", 1.0),),
        ),
        "words": dataclasses.replace(
            dense,
            data=DataConfig("words", folder / "text.txt", length=3),
            model=MlpConfig(noise_size=4, hidden_sizes=(8,), head="softmax"),
            estimator="reinforce",
        ),
        "transformer": text,
        "split": dataclasses.replace(text, sharding="split"),
        "documents": dataclasses.replace(text, data=folder / "lines.txt", documents="lines"),
        "lstm": dataclasses.replace(
            text, model=RecurrentConfig(cell="lstm", layers=2, embed_dim=8, hidden_size=8)
        ),
    }


def train_all(folder: Path, out: Path) -> None:
    for name, config in runs(folder).items():
        train = adversarial.train if isinstance(config, GanConfig) else language.train
        train(config, out / name)


def start(processes: int, *arguments: Path) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [sys.executable, *launcher, __file__, *map(str, arguments)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    source = np.random.default_rng(0)
    pixels = source.integers(0, 256, (10, 1, 6, 5), dtype=np.uint8)
    np.savez(path / "images.npz", images=pixels, labels=np.arange(10) % 3)
    (path / "sound").mkdir()
    for number, wave in enumerate(source.uniform(-1, 1, (6, 256)).astype(np.float32)):
        (path / "sound" / f"{number}.wav").write_bytes(wav_bytes(wave, rate=1000))
    (path / "text.txt").write_text("the cat sat on the mat and the dog ran out of the bay. " * 20)
    lines = ["the cat sat on the mat", "and ran", "the dog", "out of the bay it ran"]
    (path / "lines.txt").write_text("\n".join(lines * 9))
    train_all(path, path / "one")
    process = start(2, path, path / "two")
    long = path / "two" / "long"
    while not checkpoint_steps(long / "checkpoint"):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    number, *_ = (path / "two" / "processes").read_text().split()
    os.kill(int(number), signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    (path / "output").write_text(output)
    return path


@pytest.fixture
def output(folder: Path) -> str:
    """What both processes wrote to the terminal."""
    return (folder / "output").read_text()


def test_one_process_speaks(output: str) -> None:
    assert output.count(f"gan {STEPS}/{STEPS}") == 5, output


def losses(path: Path) -> list[dict]:
    rows = read_metrics(path / "metrics.jsonl")
    return [
        {name: value for name, value in row.items() if name == "step" or "loss" in name}
        for row in rows
    ]


@pytest.mark.parametrize("name", runs(Path()))
def test_two_processes_are_one_with_the_joined_batch(folder: Path, name: str) -> None:
    one, two = losses(folder / "one" / name), losses(folder / "two" / name)
    assert len(one) == STEPS
    for row, other in zip(one, two, strict=True):
        assert other == pytest.approx(row, rel=2e-4, abs=2e-5)
    newest = Path("checkpoint", f"step-{STEPS}")
    for path in (folder / "one" / name / newest).glob("*.safetensors"):
        if ".optimizer." in path.name:  # moments of tiny gradients, which rounding moves most
            continue
        expected = safetensors.torch.load_file(path)
        found = safetensors.torch.load_file(folder / "two" / name / newest / path.name)
        assert found.keys() == expected.keys()
        for key, weight in expected.items():
            if key == "score.bias" and name == "r1-r2":
                continue  # it cancels in that loss: its gradient is rounding, which Adam enlarges
            torch.testing.assert_close(found[key], weight, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", ["r1-r2", "split", "lstm"])
def test_a_run_goes_on_at_another_number_of_processes(folder: Path, name: str) -> None:
    resume = adversarial.resume if name == "r1-r2" else language.resume
    whole = losses(folder / "one" / name)
    # From two to one, over the same batches: two more steps than the first four.
    other = resume(folder / "two" / name, STEPS + 2)
    same = resume(folder / "one" / name, STEPS + 2)
    assert other.step == same.step == STEPS + 2
    assert losses(folder / "one" / name)[:STEPS] == whole
    for row, twin in zip(losses(same.path), losses(other.path), strict=True):
        assert twin == pytest.approx(row, rel=5e-4, abs=5e-5)


def test_sigterm_to_one_process_saves_on_all(folder: Path, output: str) -> None:
    (step,) = checkpoint_steps(folder / "two" / "long" / "checkpoint")[-1:]
    assert output.count(f"stopped at {step}") == 2, output


def test_all_stop_where_one_cannot_write(folder: Path, output: str) -> None:
    assert output.count("first stops: cannot write a checkpoint") == 1, output
    assert output.count("another stops: cannot write a checkpoint") == 1, output
    assert output.count("first stops: cannot write the log") == 1, output
    assert output.count("another stops: cannot write the log") == 1, output
    assert not (folder / "two" / "full-0").exists()


ENDS = """
import atexit, sys
from pathlib import Path

sys.path.insert(0, {tests!r})
from test_processes import adversarial, runs

def threads():
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    print("threads of the group:", sum("gloo" in name for name in names), flush=True)

atexit.register(threads)  # the first to be registered, so the last to be called
folder = Path({folder!r})
adversarial.train(runs(folder)["r1-r2"], folder / "ends")
threads()
"""


def test_no_thread_of_the_group_is_left_when_python_ends(folder: Path) -> None:
    # One that lets go of a tensor later than that aborts the process, now and then.
    script = ENDS.format(tests=str(Path(__file__).parent), folder=str(folder))
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", script],
        text=True,
        capture_output=True,
        env=os.environ | alone | {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"},
    )
    before, after = re.findall(r"threads of the group: (\d+)", ended.stdout)
    assert ended.returncode == 0, ended.stderr
    assert int(before) > int(after) == 0


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    processes = Processes("cpu")
    processes.count = 3
    with pytest.raises(InputError, match="a multiple of the number of processes, 3, got 8"):
        processes.rows(8)


def main() -> None:
    """What each of the processes does."""
    folder, out = map(Path, sys.argv[1:])
    train_all(folder, out)
    config = dataclasses.replace(runs(folder)["r1-r2"], steps=10**6, checkpoint_every=20)
    assert isinstance(config, GanConfig)
    for number, (place, name) in enumerate([(checkpoint, "_write_folder"), (MetricsLog, "write")]):
        with pytest.MonkeyPatch.context() as patch:
            if os.environ["RANK"] == "0":
                patch.setattr(place, name, refuse)
            try:
                adversarial.train(config, out / f"full-{number}")
            except ToldError as refusal:
                print(f"another stops: {refusal}", flush=True)
            except InputError as refusal:
                print(f"first stops: {refusal}", flush=True)
    with (out / "processes").open("a") as file:
        file.write(f"{os.getpid()}\n")
    result = adversarial.train(config, out / "long")
    assert result.stopped_early
    print(f"stopped at {result.step}", flush=True)


def refuse(*arguments: object, **_: object) -> None:
    """What a full disk does."""
    if isinstance(arguments[0], MetricsLog):
        raise InputError("cannot write the log: No space left on device")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


if __name__ == "__main__":
    main()
