from collections.abc import Sequence
from typing import Any, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "WordTables",
    "activate",
    "activate_backward",
    "apply_activate",
    "apply_activate_backward",
    "apply_linear",
    "apply_linear_backward",
    "apply_linear_with_sums",
    "apply_rnn_layer",
    "apply_rnn_layer_backward",
    "attach_torch",
    "attend",
    "attend_backward",
    "attention",
    "attention_backward",
    "attention_backward_mask",
    "attention_backward_sinks",
    "attention_backward_slopes",
    "config",
    "decode_attention",
    "get_num_threads",
    "linear",
    "linear_backward",
    "peak_flops",
    "peak_read",
    "replace_sdpa",
    "rnn_layer",
    "rnn_layer_backward",
    "rnn_layers",
    "rnn_saved_columns",
    "rnn_scan",
    "rnn_scan_backward",
    "set_num_threads",
    "takes_tensors",
]

_Real = TypeVar("_Real", np.float32, np.float64)

_Array = NDArray[Any]
# query, key, value, attn_mask, alibi_slopes, sinks, query_lengths, key_lengths, seed
_Operands = tuple[
    _Array,
    _Array,
    _Array,
    _Array | None,
    _Array | None,
    _Array | None,
    _Array | None,
    _Array | None,
    _Array | None,
]
# scale, softcap, dropout_p, left, right, bottom_right, packed
_Options = tuple[float, float, float, int, int, bool, bool]
# grad_output, grad_lse, output, lse
_Results = tuple[_Array, _Array | None, _Array, _Array]

@final
class WordTables:
    def __new__(
        cls,
        input: NDArray[np.float32],
        output: NDArray[np.float32],
        keep: NDArray[np.float64],
        noise: NDArray[np.float64],
        parts: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
    ) -> WordTables: ...
    def train(
        self,
        words: NDArray[np.int64],
        sentences: NDArray[np.int64],
        objective: str,
        window: int,
        negatives: int,
        batch: int,
        learning_rates: tuple[float, float],
        seed: int,
    ) -> tuple[float, int]: ...
    def input(self) -> NDArray[np.float32]: ...
    def output(self) -> NDArray[np.float32]: ...

def attach_torch(folder: str, version: str) -> None: ...
def attention(operands: _Operands, options: _Options) -> list[NDArray[Any]]: ...
def attention_backward(
    results: _Results, operands: _Operands, options: _Options, wanted: tuple[bool, bool, bool]
) -> list[NDArray[Any]]: ...
def attention_backward_mask(
    results: _Results, operands: _Operands, options: _Options
) -> NDArray[Any]: ...
def attention_backward_sinks(
    results: _Results, operands: _Operands, options: _Options
) -> NDArray[Any]: ...
def attention_backward_slopes(
    results: _Results, operands: _Operands, options: _Options
) -> NDArray[Any]: ...
def config() -> dict[str, Any]: ...
def decode_attention(
    # query, key, value, block_table, key_lengths, alibi_slopes, sinks
    operands: tuple[
        _Array,
        _Array,
        _Array,
        NDArray[np.int32] | None,
        NDArray[np.int64] | None,
        _Array | None,
        _Array | None,
    ],
    # scale, softcap, left, right, bottom_right
    options: tuple[float, float, int, int, bool],
) -> list[_Array]: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def peak_flops(dtype: str) -> float: ...
def peak_read(bytes: int) -> float: ...
def activate(input: NDArray[_Real], activation: str) -> NDArray[_Real]: ...
def activate_backward(
    grad_output: NDArray[_Real], saved: NDArray[_Real], activation: str
) -> NDArray[_Real]: ...
def apply_activate(input: torch.Tensor, activation: str) -> torch.Tensor | None: ...
def apply_activate_backward(
    grad_output: torch.Tensor, saved: torch.Tensor, activation: str
) -> torch.Tensor | None: ...
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
def rnn_layer(
    layout: tuple[str, list[int]],
    states: tuple[NDArray[_Real], ...],
    weights: list[NDArray[_Real]],
    keep: bool,
) -> list[NDArray[_Real]]: ...
def rnn_layer_backward(
    layout: tuple[str, list[int]],
    states: tuple[NDArray[_Real], ...],
    weights: list[NDArray[_Real]],
    results: tuple[NDArray[_Real], NDArray[_Real]],
    gradients: tuple[NDArray[_Real] | None, ...],
) -> list[NDArray[_Real]]: ...
def rnn_layers(
    kind: str,
    batch_sizes: list[int],
    directions: int,
    input: torch.Tensor,
    states: list[torch.Tensor],
    weights: Sequence[Sequence[torch.Tensor]],
) -> list[torch.Tensor] | None: ...
def rnn_saved_columns(kind: str, hidden_size: int) -> int: ...
def apply_linear(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str,
) -> torch.Tensor | None: ...
def apply_linear_with_sums(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str,
) -> list[torch.Tensor] | None: ...
def apply_linear_backward(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    saved: torch.Tensor | None,
    activation: str,
    gradients: tuple[bool, bool, bool],
) -> list[torch.Tensor] | None: ...
def apply_rnn_layer(
    layout: tuple[str, list[int]],
    states: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    weights: Sequence[torch.Tensor],
) -> list[torch.Tensor] | None: ...
def apply_rnn_layer_backward(
    layout: tuple[str, list[int]],
    states: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    weights: Sequence[torch.Tensor],
    results: tuple[torch.Tensor, torch.Tensor],
    gradients: Sequence[torch.Tensor | None],
    kinds: tuple[bool, bool],
) -> list[torch.Tensor] | None: ...
def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
    keep: bool,
) -> tuple[torch.Tensor, torch.Tensor | None] | None: ...
def attend_backward(
    grad_output: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    lse: torch.Tensor,
    is_causal: bool,
    scale: float | None,
    wanted: tuple[bool, bool, bool],
) -> list[torch.Tensor] | None: ...
def replace_sdpa(replaced: bool) -> None: ...
def rnn_scan(
    layout: tuple[str, list[int], bool], gates: NDArray[_Real], hidden: NDArray[_Real]
) -> list[NDArray[_Real]]: ...
def rnn_scan_backward(
    layout: tuple[str, list[int], bool],
    gates: NDArray[_Real],
    hidden: NDArray[_Real],
    output: NDArray[_Real],
    gradients: tuple[NDArray[_Real] | None, NDArray[_Real] | None],
) -> list[NDArray[_Real]]: ...
def takes_tensors() -> bool: ...
