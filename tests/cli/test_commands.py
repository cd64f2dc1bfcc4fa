"""What commands make, and the one line and exit code that bad input gets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fusewire.cli import main
from fusewire.data.text import ContiguousStreams
from fusewire.errors import InputError
from fusewire.training.adversarial.collapse import CollapseWarning

TEXT = "It was the best of times, it was the worst of times.\n" * 30
QUICK = ["--steps", "3", "--batch", "2", "--context", "16"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are faster so, also on a machine that does other things."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    inside = tmp_path / "here"
    inside.mkdir()
    monkeypatch.chdir(inside)
    return inside


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    path = tmp_path / "images.npz"
    images = np.random.default_rng(0).integers(0, 256, size=(40, 8, 8), dtype=np.uint8)
    np.savez(path, images=images)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody changes."""
    path = tmp_path_factory.mktemp("trained")
    (path / "text.txt").write_text(TEXT)
    command = ["train", "lm", "--data", str(path / "text.txt"), "--model", "gru", *QUICK]
    assert main([*command, "--out", str(path / "run")]) == 0
    return path / "run"


@pytest.fixture
def language_run(trained: Path, folder: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, folder / "runs" / "gru-1"))


def refusal(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command with these arguments is refused with."""
    capfd.readouterr()
    assert main(list(arguments)) == 2
    message = capfd.readouterr().err
    assert message.startswith("fusewire: ")
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize("model", ["transformer", "lstm", "gru", "rnn"])
def test_a_language_model_is_trained_and_sampled(
    model: str, text_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "lm", "--data", str(text_file), "--model", model, *QUICK]) == 0
    assert "validation_loss" in capfd.readouterr().out
    assert Path("runs", f"{model}-1", "samples.txt").exists()
    assert main(["sample", f"runs/{model}-1", "--prompt", "It was", "--length", "12"]) == 0
    first = capfd.readouterr().out
    assert first.startswith("It was")
    assert main(["sample", f"runs/{model}-1", "--prompt", "It was", "--length", "12"]) == 0
    assert capfd.readouterr().out == first


def test_each_run_gets_a_directory_of_its_own(language_run: Path, text_file: Path) -> None:
    assert main(["train", "lm", "--data", str(text_file), "--model", "gru", *QUICK]) == 0
    assert {path.name for path in language_run.parent.iterdir()} == {"gru-1", "gru-2"}


def test_options_reach_the_configuration(text_file: Path) -> None:
    options = ["--seed", "3", "--learning-rate", "0.5", "--tokenizer", "characters"]
    assert main(["train", "lm", "--data", str(text_file), *QUICK, *options, "--out", "a/b"]) == 0
    config = json.loads(Path("a/b/config.json").read_text())["config"]
    asked = {"steps": 3, "batch": 2, "context": 16, "seed": 3, "learning_rate": 0.5}
    assert {name: config[name] for name in asked} == asked
    assert config["tokenizer"] == "characters"
    assert Path(config["data"]).is_absolute()


def test_a_gan_is_trained_and_sampled(image_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "gan", "--data", str(image_file), "--steps", "3", "--batch", "8"]) == 0
    capfd.readouterr()
    assert main(["sample", "runs/gan-1", "--count", "4", "--seed", "7", "--out", "four.png"]) == 0
    assert capfd.readouterr().out.strip() == "four.png"
    assert Path("four.png").read_bytes().startswith(b"\x89PNG")
    too_many = refusal(capfd, "sample", "runs/gan-1", "--count", "2147483647")
    assert "not enough memory" in too_many
    assert "--prompt is for language models and encoder-decoders; runs/gan-1 is a GAN" in refusal(
        capfd, "sample", "runs/gan-1", "--prompt", "A"
    )
    for option, value in (("data", "x"), ("analogies", "x"), ("batch", "-5")):
        message = refusal(capfd, "evaluate", "runs/gan-1", f"--{option}", value)
        assert message.startswith(f"fusewire: --{option} is for ")


def test_clipped_weights_take_the_place_of_the_penalty(image_file: Path) -> None:
    command = ["train", "gan", "--data", str(image_file), "--steps", "1", "--batch", "4"]
    assert main([*command, "--loss", "wasserstein", "--weight-clip", "0.1", "--out", "run"]) == 0
    config = json.loads(Path("run/config.json").read_text())["config"]
    assert (config["penalties"], config["weight_clip"]) == ([], 0.1)


@pytest.mark.parametrize("failing", [False, True])
def test_warnings_are_told_while_a_command_runs(
    failing: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def warn_and_go_on(_: object) -> int:
        warnings.warn("the generator may have\ncollapsed", CollapseWarning, stacklevel=2)
        told = capfd.readouterr().err
        assert told == "fusewire: warning: the generator may have collapsed\n"
        if failing:
            raise InputError("training diverged")
        return 0

    monkeypatch.setattr("fusewire.cli.train.run", warn_and_go_on)
    assert main(["train", "gan"]) == (2 if failing else 0)
    assert capfd.readouterr().err == ("fusewire: training diverged\n" if failing else "")


def test_text_is_written_where_asked(language_run: Path) -> None:
    assert main(["sample", str(language_run), "--length", "5", "--out", "text.txt"]) == 0
    assert Path("text.txt").read_text()


def test_a_stopped_run_ends_with_130_and_can_be_resumed(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    at = ContiguousStreams.at

    def interrupt(streams: ContiguousStreams, step: int) -> object:
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return at(streams, step)

    monkeypatch.setattr(ContiguousStreams, "at", interrupt)
    command = ["train", "lm", "--data", str(text_file), "--model", "rnn", *QUICK]
    assert main([*command, "--out", "run"]) == 130
    assert "fusewire resume run" in capfd.readouterr().out
    monkeypatch.undo()
    monkeypatch.chdir(text_file.parent / "here")
    assert main(["resume", "run"]) == 0
    assert "is finished" in refusal(capfd, "resume", "run")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, [], "does not exist"),
        (b"", [], "is empty"),
        (b"\xff\xfe\x00", [], "is not UTF-8 text"),
        (b"too short", [], "needs at least 258"),
        (TEXT.encode(), ["--steps", "0"], "--steps must be at least 1, got 0"),
        (TEXT.encode(), ["--steps", "many"], "Error parsing --steps"),
        (TEXT.encode(), ["--context", "-1"], "context must be at least 1, got -1"),
        (TEXT.encode(), ["--batch", "0"], "--batch must be at least 1, got 0"),
        (TEXT.encode(), ["--learning-rate", "-0.1"], "--learning-rate must be more than 0"),
        (TEXT.encode(), ["--learning-rate", "nan"], "--learning-rate must be more than 0"),
        (TEXT.encode(), ["--model", "perceptron"], "--model"),
        (TEXT.encode(), ["--batch", "99999999999"], "--batch must be at most 1048576"),
        (TEXT.encode(), ["--device", "abacus"], "abacus"),
        (TEXT.encode(), ["--device", "meta"], '"meta" cannot be used'),
        (TEXT.encode(), ["--seed", "-1"], "--seed must be at least 0"),
        (TEXT.encode(), ["--bogus"], "--bogus"),
        (TEXT.encode(), ["--out", "../text.txt/run"], "text.txt"),
        (TEXT.encode(), ["--out", ".."], "not empty"),
    ],
)
def test_bad_input_for_a_language_model_is_refused(
    content: bytes | None,
    options: list[str],
    message: str,
    text_file: Path,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    text_file.unlink()
    if content is not None:
        text_file.write_bytes(content)
    command = ["train", "lm", "--data", "../text.txt", "--model", "rnn", *options]
    assert message in refusal(capfd, *command)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        ["--data", "absent"],
        ["--data", "../text.txt"],
        ["--steps", "0"],
        ["--batch", "99999999999"],
        ["--generator-learning-rate", "1e30", "--steps", "20"],
        ["--steps", "2", "--loss", "hinge", "--real-target", "0.9"],
        ["--steps", "2", "--loss", "wasserstein", "--weight-clip", "0"],
        ["--steps", "2", "--model", "convolutional", "--loss", "hinge", "--weight-clip", "1"],
        ["--device", "meta"],
    ],
)
def test_bad_input_for_a_gan_is_refused(
    options: list[str],
    text_file: Path,
    image_file: Path,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert text_file.exists()
    message = refusal(capfd, "train", "gan", "--data", str(image_file), *options)
    assert options[-2] in message or options[-2] in ("--data", "--steps", "--device")
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "{demo, train, resume, sample, evaluate, neighbours, tokenize, info}"),
        (["paint"], "paint"),
        (["sample", "absent"], "absent does not exist"),
        (["sample", "."], "is not the directory of a run"),
        (["resume", "."], "is not the directory of a run"),
        (["resume", "x" * 999], "cannot read xxx"),
        (["train"], "{lm, embeddings, classifier, seq2seq, gan}"),
    ],
)
def test_what_is_no_command_or_no_run_is_refused(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capfd, *arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "caf\udce9"], "the prompt is not UTF-8"),
        (["--length", "0"], "length must be at least 1"),
        (["--temperature", "-1"], "temperature must be at least 0"),
        (["--top-k", "0"], "top_k must be at least 1"),
        (["--count", "0"], "count must be at least 1"),
        (["--out", "absent/text.txt"], "cannot write absent/text.txt"),
        (["--seed", str(2**63)], "seed must be at most"),
        (["--count", "2147483647"], "not enough memory"),
        (["--count", "2147483647", "--length", "2147483647"], "not enough memory"),
    ],
)
def test_a_sample_that_cannot_be_drawn_is_refused(
    options: list[str], message: str, language_run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capfd, "sample", str(language_run), *options)


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint/step-3/manifest.json",
        "checkpoint/step-3/model.safetensors",
        "tokenizer.json",
        "config.json",
    ],
)
def test_a_damaged_run_is_refused(
    name: str, language_run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for content in (b"damaged", b"[" * 100_000):  # the second exhausts a recursive parser
        (language_run / name).write_bytes(content)
        message = refusal(capfd, "sample", str(language_run))
        assert "damaged" in message or "cannot read" in message


def test_a_demo_is_refused_where_something_is(
    text_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "not empty" in refusal(capfd, "demo", "--out", str(text_file.parent))


def test_info_names_the_machine(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert "machine" in capfd.readouterr().out


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_needs_no_torch() -> None:
    code = """
import atexit, sys
atexit.register(lambda: print("imported" if "torch" in sys.modules else "not imported"))
from fusewire.cli import main
main(["train", "lm", "--help"])
"""
    ended = run_python(code)
    assert ended.returncode == 0, ended.stderr
    assert "--data" in ended.stdout
    assert ended.stdout.endswith("not imported\n")


@pytest.mark.parametrize("package", ["torch", "tyro"])
def test_a_missing_package_is_named(package: str) -> None:
    code = f"""
import sys
sys.modules["{package}"] = None
from fusewire.cli import main
sys.exit(main(["sample", "runs"]))
"""
    ended = run_python(code)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"fusewire: {package} is not installed: pip install 'fusewire[train]' brings it\n"
    )


# A short command that writes to standard output; without PyTorch it starts at once.
INFO = """
import sys

class WithoutTorch:
    def find_spec(self, name, *_):
        if name == "torch":
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, WithoutTorch())
from fusewire.cli import main
sys.exit(main(["info"]))
"""


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command, "bash", sys.executable],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def test_a_terminal_without_unicode_is_written_to(image_file: Path) -> None:
    command = f'"$1" -m fusewire train gan --data {image_file} --steps 2'
    ended = shell(command, LC_ALL="C", PYTHONIOENCODING="ascii")
    assert ended.returncode == 0, ended.stderr
    assert "what was made" in ended.stdout


def test_a_reader_that_leaves_ends_a_command_quietly() -> None:
    ended = shell('"$1" -c "$INFO" | true; exit ${PIPESTATUS[0]}', INFO=INFO)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
def test_output_without_room_is_refused() -> None:
    ended = shell('"$1" -c "$INFO" > /dev/full', INFO=INFO)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "No space left" in ended.stderr


def test_closed_output_is_not_missed(language_run: Path) -> None:
    ended = shell(f'"$1" -m fusewire sample {language_run} --length 3 >&- <&-')
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_package_is_a_command() -> None:
    ended = shell('"$1" -m fusewire sample --paint')
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
