"""The way into PyTorch: nothing at import, threads, forks, errors."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch

import fusewire as fw
from fusewire import _native


def run(code):
    """Runs Python code in a process of its own and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_arrays_need_no_pytorch_and_import_starts_no_thread():
    printed = run("""
        import sys, threading, os
        import numpy as np
        before = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
        import fusewire as fw
        after = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
        fw.linear(np.ones((2, 3)), np.ones((4, 3)))
        print("torch" in sys.modules, "fusewire.nn" in sys.modules, after - before)
    """)
    assert printed == "False False 0"


def test_threads_that_pytorch_starts_in_our_kernels_keep_denormal_numbers():
    kept = run("""
        import torch
        import fusewire as fw
        torch.set_num_threads(2)
        with torch.no_grad():  # the first that wants PyTorch's threads
            fw.nn.LSTM(128, 256)(torch.randn(30, 64, 128))
        print(int((torch.full((400_000,), 1e-40) * 1).count_nonzero()))
    """)
    assert kept == "400000"


def test_arrays_use_pytorchs_threads_once_it_is_imported():
    fw.linear(np.ones((1, 1)), np.ones((1, 1)))
    assert _native.config()["team"] == "PyTorch"
    before = torch.get_num_threads()
    try:
        fw.set_num_threads(1)
        assert torch.get_num_threads() == fw.get_num_threads() == _native.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_other_python_threads_run_during_a_kernel():
    # Long enough for a busy machine to give the other thread a turn.
    x, weight = torch.ones(2048, 1024), torch.ones(1024, 1024)
    fw.linear(x, weight)
    counted, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1

    thread = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    # Longer than the kernel runs, so that the counter goes on only where it lets go.
    sys.setswitchinterval(5)
    try:
        thread.start()
        before = counted[0]
        fw.linear(x, weight)
        after = counted[0]
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
    assert after > before


def test_many_threads_call_at_once():
    x, weight = torch.randn(64, 96), torch.randn(32, 96)
    expected = fw.linear(x, weight)
    results = [None] * 8

    def call(place):
        results[place] = fw.linear(x, weight)

    threads = [threading.Thread(target=call, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(result, expected) for result in results)


class Doubled(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        rows = torch.full((64, 64), float(index))
        return fw.linear(rows, 2 * torch.eye(64))[0, 0]


def test_kernels_run_in_forked_workers():
    fw.linear(torch.ones(256, 256), torch.ones(256, 256))
    loader = torch.utils.data.DataLoader(
        Doubled(), batch_size=2, num_workers=2, multiprocessing_context="fork"
    )
    assert torch.cat(list(loader)).tolist() == [2.0 * index for index in range(8)]


def test_the_first_call_of_all_may_be_compiled():
    printed = run("""
        import torch, fusewire as fw
        x, weight = torch.ones(3, 5, requires_grad=True), torch.ones(2, 5)
        call = torch.compile(lambda x: fw.linear(x, weight), fullgraph=True, backend="aot_eager")
        call(x).sum().backward()
        print(x.grad.sum().item())
    """)
    assert printed == "30.0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_our_own_pool_starts_anew_after_a_fork():
    printed = run("""
        import os, numpy as np, fusewire as fw
        fw.set_num_threads(2)
        x = np.ones((512, 256))
        fw.linear(x, x)
        child = os.fork()
        if child == 0:
            os._exit(0 if fw.linear(x, x)[0, 0] == 256 else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert printed == "0"


def test_an_unknown_instruction_set_is_told():
    printed = run("""
        import os
        os.environ["FUSEWIRE_ISA"] = "mmx"
        import numpy as np, fusewire as fw
        try:
            fw.linear(np.ones((2, 3)), np.ones((4, 3)))
        except ValueError as error:
            print(error)
    """)
    assert printed.startswith("FUSEWIRE_ISA must be one of")


def test_an_old_pytorch_is_told_in_one_line():
    printed = run("""
        import sys
        from fusewire import _native
        try:
            _native.attach_torch("/nowhere", "2.4.0")
        except RuntimeError as error:
            print(error)
    """)
    assert printed == "PyTorch 2.4.0 is imported, but its library was not found"


def test_show_config_names_what_matters(capsys):
    fw.show_config()
    printed = capsys.readouterr().out
    for word in ("isa", "threads", "build", "numpy", "torch"):
        assert word in printed


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        fw.set_num_threads(0)
