"""Times every case of the registry, ours and the rival in turns, after verifying it."""

import statistics
import time
from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benches.registry import Case, all_cases
from benches.verify import verify, verify_other
from fusewire import _native

ROUNDS = 9
SETTLE_SECONDS = 0.01
"""PyTorch's threads spin for about 5 ms behind an operator and would take a core from ours."""


CACHED_BYTES = 16 << 20
"""What is read again and again stays in some cache up to this size."""


def bytes_per_second(count: float) -> float:
    """How fast so many bytes are read.

    From a cache by one core, as single steps are, or from memory by all of PyTorch's threads.
    """
    if count <= CACHED_BYTES:
        return _native.peak_read(int(count))
    numbers = torch.ones(64 << 20)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - start)
    return numbers.nbytes / statistics.median(times)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_operator(case: Case, threads: int, benchmark: BenchmarkFixture) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        error, rival_error = verify(case)
        inputs = case.inputs(case.dtype)
        rivals = {"rival": partial(case.rival, *inputs)}
        for name, build in case.others.items():
            rivals[name] = build(inputs, threads)
            verify_other(case, rivals[name]())
        seconds_of: dict[str, list[float]] = {name: [] for name in rivals}

        def time_rivals() -> None:
            # Each runs once untimed before it is timed, so that none finds another's caches.
            for name, run in rivals.items():
                run()
                start = time.perf_counter()
                run()
                seconds = time.perf_counter() - start
                # One in another process tells how long it took itself.
                seconds_of[name].append(getattr(run, "seconds", seconds))
                time.sleep(SETTLE_SECONDS)
            case.ours(*inputs)

        benchmark.group = case.operator
        benchmark.pedantic(
            case.ours, inputs, setup=time_rivals, rounds=ROUNDS, warmup_rounds=2, iterations=1
        )
        reads = case.bytes_read and not benchmark.disabled
        read_speed = bytes_per_second(case.bytes_read) if reads else 0.0
    finally:
        torch.set_num_threads(before)
    if benchmark.disabled:  # verified only
        return
    seconds = benchmark.stats.stats.median
    work, peak = case.flops, threads * _native.peak_flops(case.dtype_name)
    if case.bytes_read:
        work, peak = case.bytes_read, read_speed
    benchmark.extra_info.update(
        threads=threads,
        gflops=case.flops / seconds / 1e9,
        peak=peak,
        of_peak=work / seconds / peak,
        ratio=statistics.median(seconds_of["rival"]) / seconds,
        error=error,
        rival_error=rival_error,
        **{f"{name}_seconds": statistics.median(times) for name, times in seconds_of.items()},
    )
