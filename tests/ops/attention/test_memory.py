"""Memory beside the operands is linear in the lengths, in a process that does nothing else."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys
import numpy as np
import fusewire as fw
from fusewire.ops.attention import scaled_dot_product_attention_backward

length, options = json.loads(sys.argv[1])
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
rng = np.random.default_rng(0)
query, key, value, upstream = rng.standard_normal((4, 1, 1, length, 64), dtype=np.float32)
before = peak()
output, lse = fw.scaled_dot_product_attention(query, key, value, return_lse=True, **options)
forward = peak() - before
assert np.isfinite(output).all() and np.isfinite(lse).all()
if options:
    scaled_dot_product_attention_backward(upstream, query, key, value, output, lse, **options)
print(forward, peak() - before)
"""
ALONE = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
"""A process begins with the peak of the one that starts it, so a small one does."""


@pytest.mark.parametrize(("length", "options"), [(65536, {"window": [256, 0]}), (16384, {})])
def test_it_is_linear(length, options):
    python = [sys.executable, "-c"]
    command = [*python, ALONE, *python, PROGRAM, json.dumps([length, options])]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    forward, backward = map(int, told.split())
    operand = 64 * 4 * length
    # The output, packed keys, and tiles of every thread; the scores would be 64 or 256 operands.
    assert 0 < forward < 4 * operand
    assert backward < 10 * operand
