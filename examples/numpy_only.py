"""Attention and its gradients on NumPy arrays: no PyTorch is installed or imported."""

import sys

import numpy as np

import fusewire as fw
from fusewire.ops.attention import scaled_dot_product_attention_backward

random = np.random.default_rng(0)

# Keys that point in 16 directions, each with a value; queries shall learn to find theirs.
directions = np.linalg.qr(random.standard_normal((16, 16)))[0].astype(np.float32)
keys = np.broadcast_to(6 * directions, (2, 16, 16))  # two heads share one set of keys: no copy
values = random.standard_normal((2, 16, 8)).astype(np.float32)
wanted = values[:, ::-1]
queries = 0.1 * random.standard_normal((2, 16, 16)).astype(np.float32)

for step in range(300):
    output, lse = fw.scaled_dot_product_attention(queries, keys, values, return_lse=True)
    error = output - wanted
    if step % 100 == 0:
        print(f"step {step:3}  error {np.square(error).mean():.4f}")
    grad_queries, _, _ = scaled_dot_product_attention_backward(
        error, queries, keys, values, output, lse
    )
    queries -= 0.5 * grad_queries

print(f"at the end  error {np.square(error).mean():.4f}")
assert np.square(error).mean() < 0.1
assert "torch" not in sys.modules
