"""Attention of tiny shapes, where a call costs more than its arithmetic.

`python -m benches.tiny [STEP]` runs every combination of lengths 1 to 64, heads 1 to 8 and head_dim
8 to 64, forward and with gradients, through our operator and through PyTorch's with ours beneath it
(`fw.enabled`), and lists where either is slower than PyTorch's own by more than two microseconds.
"""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import product
from typing import Any

import torch
import torch.nn.functional as functional

import fusewire as fw

ALLOWED = 2e-6
"""Seconds that ours may take longer."""
ROUNDS = (7, 60)
"""Turns of the first look, and of the second at what looked too slow."""
CALLS = 8
"""Calls that are timed at once."""

DOORS: dict[str, tuple[Callable[..., torch.Tensor], Callable[[], Any]]] = {
    "PyTorch": (functional.scaled_dot_product_attention, nullcontext),
    "operator": (fw.scaled_dot_product_attention, nullcontext),
    "enabled": (functional.scaled_dot_product_attention, fw.enabled),
}


def _call(attention: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> None:
    output = attention(*inputs, is_causal=True)
    if output.requires_grad:
        torch.autograd.grad(output, inputs, output.detach())


def seconds(
    shape: tuple[int, int, int, int], with_gradients: bool, rounds: int
) -> dict[str, float]:
    """How long one call takes through each door: the shortest of the rounds, which take turns."""
    inputs = [torch.randn(shape, requires_grad=with_gradients) for _ in range(3)]
    best = dict.fromkeys(DOORS, float("inf"))
    for turn in range(rounds + 1):
        for name, (attention, context) in DOORS.items():
            with context():
                _call(attention, inputs)
                start = time.perf_counter()
                for _ in range(CALLS):
                    _call(attention, inputs)
                took = (time.perf_counter() - start) / CALLS
            if turn > 0:
                best[name] = min(best[name], took)
    return best


def main(step: int) -> None:
    """Prints what is too slow, and how much is lost and won elsewhere."""
    torch.set_num_threads(1)
    shapes = list(product((1,), range(1, 9), range(1, 65, step), range(8, 65, 8)))
    for with_gradients in (False, True):
        kind = "with gradients" if with_gradients else "forward"
        lost: dict[str, list[float]] = {name: [] for name in DOORS if name != "PyTorch"}
        slow: list[str] = []
        for shape in shapes:
            best = seconds(shape, with_gradients, ROUNDS[0])
            if any(best[name] > best["PyTorch"] + ALLOWED for name in lost):
                best = seconds(shape, with_gradients, ROUNDS[1])
            for name, of_name in lost.items():
                of_name.append(best[name] - best["PyTorch"])
                if of_name[-1] > ALLOWED:
                    slow.append(f"  {name} {shape}: {1e6 * of_name[-1]:.1f} us longer")
        for name, of_name in lost.items():
            of_name.sort()
            middle, most = of_name[len(of_name) // 2], of_name[-1]
            late = sum(extra > ALLOWED for extra in of_name)
            print(
                f"{kind}, {name}: {len(shapes)} shapes, {late} slower by more than 2 us;"
                f" {1e6 * middle:+.1f} us in the median, {1e6 * most:+.1f} at most"
            )
        print("\n".join(slow[:20]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
