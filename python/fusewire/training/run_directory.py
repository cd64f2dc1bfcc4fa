"""One directory per run: what was asked for, what happened, and what came out.

RUN/config.json      kind, configuration, versions, fingerprint of the data
RUN/metrics.jsonl    one line per logged step
RUN/losses.png       the loss curves
RUN/samples.*        png for images and points, txt for text, wav for sound, npy for vectors
RUN/checkpoint/      step-N folders, see `fusewire.training.checkpoint`
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusewire.config import JSON, Config, config_from_json, config_to_json
from fusewire.errors import InputError
from fusewire.training.checkpoint import checkpoint_steps
from fusewire.training.durable import replace_file

_CONFIG = "config.json"


@dataclass(frozen=True)
class RunDirectory:
    """The directory of one run; made by `create` or `open`.

    Attributes:
        path: the directory.
        kind: which loop made it, such as "gan" or "language".
        settings: the configuration as JSON; `config` turns it into its dataclass.
        data_fingerprint: hash of the training data, see `fusewire.data`.
        ended: the step at which everything of the run had been made when it was opened; None for
            one that was killed before.
    """

    path: Path
    kind: str
    settings: JSON
    data_fingerprint: str
    ended: int | None = None

    @classmethod
    @contextlib.contextmanager
    def create(
        cls, path: Path, kind: str, config: object, data_fingerprint: str
    ) -> Iterator[RunDirectory]:
        """Makes the directory and writes its config.json, for the block in which the run happens.

        A block that fails before it has saved a checkpoint takes everything back: a directory that
        is there can be resumed and sampled from.

        Args:
            path: must not exist or be an empty directory; parents are made.
            kind: which loop makes the run.
            config: the dataclass that describes the run completely.
            data_fingerprint: hash of the training data.

        Raises:
            InputError: the path holds something already or cannot be written.

        Yields:
            The directory.
        """
        refuse_unusable(path)
        made = _missing_parents(path)
        run = cls(path, kind, config_to_json(config), data_fingerprint)
        try:
            try:
                path.mkdir(parents=True, exist_ok=True)
                run._write_description()
            except OSError as failure:
                raise _unwritable(path, failure) from failure
            yield run
        except BaseException:  # a second Ctrl-C too
            if not checkpoint_steps(run.checkpoint_folder):
                _remove(path, made)
            raise

    @classmethod
    def open(cls, path: Path, kind: str | None = None) -> RunDirectory:
        """Opens a directory that a run has made.

        Args:
            path: the directory.
            kind: refuse a run of another kind, when given.

        Raises:
            InputError: the directory is missing, not a run, damaged or of another kind.
        """
        try:
            if not path.is_dir():
                reason = "is not a directory" if path.exists() else "does not exist"
                raise InputError(f"{path} {reason}; expected the directory of a run")
        except OSError as failure:  # a name that no file can have
            raise InputError(f"cannot read {path}: {failure.strerror or failure}") from failure
        try:
            description = json.loads((path / _CONFIG).read_bytes())
        except FileNotFoundError:
            raise InputError(f"{path} is not the directory of a run: it has no {_CONFIG}") from None
        except (OSError, ValueError, RecursionError) as failure:
            raise InputError(f"{path / _CONFIG} is damaged: {failure}") from failure
        if not isinstance(description, Mapping):
            raise InputError(f"{path / _CONFIG} is damaged: expected a JSON object")
        found, fingerprint = description.get("kind"), description.get("data_fingerprint")
        if not isinstance(found, str) or not isinstance(fingerprint, str):
            raise InputError(f"{path / _CONFIG} is damaged: it names no kind or no data")
        if kind is not None and found != kind:
            raise InputError(f'{path} is a run of kind "{found}", expected "{kind}"')
        ended = description.get("ended")
        return cls(path, found, description.get("config"), fingerprint, ended)

    def config(self, kind: type[Config]) -> Config:
        """Returns the configuration as the dataclass `kind`.

        Raises:
            InputError: config.json was made for something else or edited wrongly.
        """
        return config_from_json(kind, self.settings, f"{self.path / _CONFIG}: config")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from training here, for as long as a block lasts.

        The operating system forgets it with the process, however that ends. Where a file system
        knows no locks, nobody is kept.

        Raises:
            InputError: another process trains here.
        """
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError, ImportError):
                import fcntl  # not on every operating system

                folder = os.open(self.path, os.O_RDONLY)
                stack.callback(os.close, folder)
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise InputError(
                        f"another process is training in {self.path}; wait for its end, or stop it"
                    ) from None
            yield

    def rewrite_config(self, config: object) -> None:
        """Writes another configuration, for a run that is resumed to go further.

        Raises:
            InputError: config.json cannot be written.
        """
        run = dataclasses.replace(self, settings=config_to_json(config))
        try:
            run._write_description()
        except OSError as failure:
            raise _unwritable(self.path, failure) from failure

    def note_end(self, step: int) -> None:
        """Writes down that everything has been made which there is to be made after a step.

        Raises:
            InputError: config.json cannot be read or written.
        """
        path = self.path / _CONFIG
        try:
            described = json.loads(path.read_bytes())  # it may have been rewritten since
            replace_file(path, json.dumps(described | {"ended": step}, indent=2).encode() + b"\n")
        except OSError as failure:
            raise _unwritable(self.path, failure) from failure

    def require_same_data(self, data_fingerprint: str) -> None:
        """Refuses to continue or measure a run on other data than it began with.

        Raises:
            InputError: the fingerprints differ.
        """
        if data_fingerprint != self.data_fingerprint:
            raise InputError(
                f"the data has changed since {self.path} was started; give it the same data again, "
                "or start a new run"
            )

    def _write_description(self) -> None:
        description = {
            "kind": self.kind,
            "fusewire": importlib.metadata.version("fusewire"),
            "torch": importlib.metadata.version("torch"),
            "data_fingerprint": self.data_fingerprint,
            "config": self.settings,
        }
        replace_file(self.path / _CONFIG, json.dumps(description, indent=2).encode() + b"\n")

    @property
    def metrics_path(self) -> Path:
        """The log, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def losses_path(self) -> Path:
        """The plot of the losses."""
        return self.path / "losses.png"

    @property
    def sample_text_path(self) -> Path:
        """The generated text."""
        return self.path / "samples.txt"

    @property
    def checkpoint_folder(self) -> Path:
        """The folder given to `save_checkpoint` and `load_checkpoint`."""
        return self.path / "checkpoint"


@dataclass(frozen=True)
class RunResult:
    """What a run of training left behind.

    Attributes:
        path: the run directory.
        made: what a person may want to look at, label to path.
        step: how many steps the weights have seen.
        metrics: the last measured values by name; none where no step was made.
        stopped_early: a signal ended the run before its last step; it can be resumed.
    """

    path: Path
    made: Mapping[str, Path]
    step: int
    metrics: Mapping[str, float]
    stopped_early: bool


def refuse_unusable(path: Path) -> None:
    """Refuses a path where `RunDirectory.create` could not make a run.

    Raises:
        InputError: the path is a file or a directory with content.
    """
    try:
        if path.is_dir():
            if any(path.iterdir()):
                raise InputError(f"{path} is not empty; give another directory for the run")
        elif path.exists():
            raise InputError(f"{path} is a file; give a directory for the run")
    except OSError as failure:
        raise _unwritable(path, failure) from failure


def _remove(path: Path, made: Sequence[Path]) -> None:
    with contextlib.suppress(OSError):
        for entry in path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    # One by one: another run may have begun in a folder above meanwhile.
    for folder in reversed(made):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _missing_parents(path: Path) -> list[Path]:
    return [folder for folder in (*reversed(path.parents), path) if not folder.exists()]


def _unwritable(path: Path, failure: OSError) -> InputError:
    reason = failure.strerror or failure
    return InputError(f"cannot write the run directory {path}: {reason}; give another place")
