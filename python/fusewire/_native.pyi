from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "attach_torch",
    "config",
    "get_num_threads",
    "linear",
    "linear_backward",
    "peak_flops",
    "set_num_threads",
]

_Real = TypeVar("_Real", np.float32, np.float64)

def attach_torch(folder: str, version: str) -> None: ...
def config() -> dict[str, Any]: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def peak_flops(dtype: str) -> float: ...
def linear(
    input: NDArray[_Real], weight: NDArray[_Real], bias: NDArray[_Real] | None, activation: str
) -> NDArray[_Real]: ...
def linear_backward(
    grad_output: NDArray[_Real],
    input: NDArray[_Real],
    weight: NDArray[_Real],
    bias: NDArray[_Real] | None,
    output: NDArray[_Real] | None,
    activation: str,
) -> list[NDArray[_Real]]: ...
