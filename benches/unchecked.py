"""PyTorch with its BLAS's check of the CPU's vendor bypassed, in a process of its own.

MKL takes its AVX2 path on other vendors' CPUs that have AVX-512. A library that is loaded before it
and answers its question with yes makes it take the better one: what PyTorch could do here.
"""

import atexit
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

Tensors = tuple[torch.Tensor, ...]

_ANSWER = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"


def is_possible() -> bool:
    """Whether there is a compiler here, and a BLAS that asks."""
    has_mkl: bool = torch.backends.mkl.is_available()
    return has_mkl and shutil.which("cc") is not None


@cache
def _library() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    library = folder / "answer.so"
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=_ANSWER, text=True, check=True)
    return library


@contextmanager
def _preloaded() -> Iterator[None]:
    before = os.environ.get("LD_PRELOAD")
    os.environ["LD_PRELOAD"] = ":".join(filter(None, [str(_library()), before]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["LD_PRELOAD"]
        else:
            os.environ["LD_PRELOAD"] = before


@cache
def _child(all_cases: Callable[[], Iterable[Any]]) -> Connection:
    """The other process, which waits for cases to run and ends with this one."""
    context = multiprocessing.get_context("spawn")
    connection, other = context.Pipe()
    process = context.Process(target=_serve, args=(other, all_cases), daemon=True)
    with _preloaded():
        process.start()
    other.close()
    return connection


def _serve(connection: Connection, all_cases: Callable[[], Iterable[Any]]) -> None:
    cases = {str(case): case for case in all_cases()}
    inputs_of: dict[str, Tensors] = {}
    while True:
        try:
            name, threads = connection.recv()
        except EOFError:
            return
        case = cases[name]
        if name not in inputs_of:
            inputs_of = {name: case.inputs(case.dtype)}
        torch.set_num_threads(threads)
        start = time.perf_counter()
        results = case.rival(*inputs_of[name])
        seconds = time.perf_counter() - start
        connection.send((seconds, [result.float().numpy() for result in results]))


class Unchecked:
    """PyTorch's side of a case.

    Args:
        all_cases: the function, known to both processes, that lists all cases.
        name: of the case.
        threads: those of PyTorch.
    """

    seconds = 0.0
    """How long the last run took."""

    def __init__(
        self,
        all_cases: Callable[[], Iterable[Any]],
        name: str,
        _: Tensors,  # the other process makes the same inputs itself
        threads: int,
    ) -> None:
        self._child = _child(all_cases)
        self._call = (name, threads)

    def __call__(self) -> Tensors:
        self._child.send(self._call)
        self.seconds, results = self._child.recv()
        return tuple(map(torch.from_numpy, results))
