"""One list of operators × shapes × rivals, which drives both the verification and the timing.

A new operator is one function that returns its `Case`s, decorated with `@operator`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as functional
from torch.nn.utils.rnn import pack_padded_sequence

import fusewire as fw
from benches import flex, onnx_runtime, open_vino, unchecked

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One operator at one shape: what is computed, by whom, and how much work it is."""

    operator: str
    shape: str
    flops: float
    """Floating-point operations of the useful work; causal attention counts half."""
    inputs: Callable[[torch.dtype], Tensors]
    ours: Callable[..., Tensors]
    rival: Callable[..., Tensors]
    dtype: torch.dtype = torch.float32
    bytes_read: float = 0.0
    """What must be read where that is the limit; such a case is compared with a plain read."""
    others: dict[str, Callable[[Tensors, int], Callable[[], Tensors]]] = field(default_factory=dict)
    """Further rivals by name, which are built from the inputs and a number of threads."""

    @property
    def dtype_name(self) -> str:
        """As NumPy and the extension module call it."""
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        suffix = "" if self.dtype == torch.float32 else f"-{self.dtype_name}"
        return f"{self.operator}-{self.shape}{suffix}"


_OPERATORS: list[Callable[[], Iterator[Case]]] = []


def operator(cases: Callable[[], Iterator[Case]]) -> Callable[[], Iterator[Case]]:
    """Adds the cases of an operator to the list."""
    _OPERATORS.append(cases)
    return cases


def all_cases() -> list[Case]:
    return [case for cases in _OPERATORS for case in cases()]


def _random(*shapes: tuple[int, ...]) -> Callable[[torch.dtype], Tensors]:
    def make(dtype: torch.dtype) -> Tensors:
        # In float64 first, so that both precisions see the same numbers.
        generator = torch.Generator().manual_seed(0)
        numbers = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        return tuple(tensor.to(dtype) for tensor in numbers)

    return make


def _with_gradients(forward: Callable[..., torch.Tensor]) -> Callable[..., Tensors]:
    """The output and the gradients of its inner product with the last input."""

    def train(*tensors: torch.Tensor) -> Tensors:
        *inputs, grad_output = tensors
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        output = forward(*leaves)
        return (output.detach(), *torch.autograd.grad(output, leaves, grad_output))

    return train


def _inference(forward: Callable[..., torch.Tensor]) -> Callable[..., Tensors]:
    def infer(*tensors: torch.Tensor) -> Tensors:
        with torch.no_grad():
            return (forward(*tensors[:-1]),)

    return infer


def _both(
    operator: str,
    shape: str,
    flops: float,
    training_factor: float,
    inputs: Callable[[torch.dtype], Tensors],
    ours: Callable[..., torch.Tensor],
    rival: Callable[..., torch.Tensor],
    dtype: torch.dtype = torch.float32,
) -> Iterator[Case]:
    """Inference, and training as `training_factor` times the work of inference."""
    for kind, wrap, factor in [
        ("inference", _inference, 1.0),
        ("training", _with_gradients, training_factor),
    ]:
        name, work = f"{operator}-{kind}", factor * flops
        yield Case(name, shape, work, inputs, wrap(ours), wrap(rival), dtype)


ATTENTION_SHAPES = [
    # (batch, heads, kv_heads, length, head_dim)
    (1, 8, 8, 128, 64),
    (64, 6, 6, 64, 64),
    (4, 8, 8, 512, 64),
    (1, 12, 12, 1024, 64),
    (1, 8, 8, 4096, 64),
    (1, 8, 8, 2048, 128),
    (2, 16, 4, 2048, 128),
    (4, 8, 8, 512, 80),
]


@operator
def attention() -> Iterator[Case]:
    for (batch, heads, kv_heads, length, head_dim), is_causal, dtype in product(
        ATTENTION_SHAPES, (False, True), (torch.float32, torch.bfloat16)
    ):
        shape = (batch, heads, length, head_dim)
        kv_shape = (batch, kv_heads, length, head_dim)
        forward_flops = 4.0 * batch * heads * length**2 * head_dim / (2 if is_causal else 1)
        arguments = {"is_causal": is_causal, "enable_gqa": heads != kv_heads}
        ours = partial(fw.scaled_dot_product_attention, **arguments)
        rival = partial(functional.scaled_dot_product_attention, **arguments)
        name = "x".join(map(str, shape))
        name += f"-over-{kv_heads}" * (heads != kv_heads) + "-causal" * is_causal
        inputs = _random(shape, kv_shape, kv_shape, shape)
        # The backward recomputes the scores: five products where the forward has two.
        inference, training = _both(
            "attention", name, forward_flops, 3.5, inputs, ours, rival, dtype
        )
        others: dict[str, Callable[[Tensors, int], Callable[[], Tensors]]] = {}
        if dtype == torch.float32 and onnx_runtime.is_installed():
            others["onnxruntime"] = partial(onnx_runtime.attention, is_causal)
        if dtype == torch.float32 and heads == kv_heads and open_vino.is_installed():
            others["openvino"] = partial(open_vino.attention, is_causal)
        yield _unchecked(replace(inference, others=others))
        yield _unchecked(training)


def _unchecked(case: Case) -> Case:
    """The case with one more rival: PyTorch that takes its best path on any vendor's CPU."""
    if not unchecked.is_possible():
        return case
    rival = partial(unchecked.Unchecked, all_cases, str(case))
    return replace(case, others={**case.others, "unchecked": rival})


def _flexible(
    cases: Iterator[Case], attends: flex.Rule | None, added: torch.Tensor | None = None
) -> Iterator[Case]:
    """The cases, that of inference with PyTorch's compiled FlexAttention as a further rival."""
    for case in cases:
        if case.operator.endswith("-inference") and flex.is_possible():
            rival = partial(flex.attention, attends, added)
            yield replace(case, others={**case.others, "flex": rival})
        else:
            yield case


def _packed_lengths() -> list[int]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(16, 513, (32,), generator=generator).tolist()


@operator
def masked_attention() -> Iterator[Case]:
    """What PyTorch says with a dense mask: its best way on the CPU with gradients."""
    plain = functional.scaled_dot_product_attention
    shape = (4, 8, 512, 64)
    forward_flops = 4.0 * 4 * 8 * 512**2 * 64
    inputs = _random(shape, shape, shape, shape)
    lengths = torch.tensor([512, 384, 256, 128])
    padding = (torch.arange(512) < lengths[:, None])[:, None, None, :]
    bias = torch.linspace(-1, 1, 8 * 512 * 512).reshape(8, 512, 512)
    for kind, mask, share, rule in [
        (
            "padding",
            padding,
            float(lengths.sum()) / (4 * 512),
            ((lambda b, _h, _q, k: k < lengths[b]), None),
        ),
        ("bias", bias, 1.0, (None, bias)),
    ]:
        name, flops = f"4x8x512x64-{kind}", share * forward_flops
        ours = _masked(fw.scaled_dot_product_attention, mask)
        cases = _both("attention", name, flops, 3.5, inputs, ours, _masked(plain, mask))
        yield from _flexible(cases, *rule)

    length, window, shape = 4096, 256, (1, 8, 4096, 64)
    distance = torch.arange(length) - torch.arange(length)[:, None]
    mask = (distance <= 0) & (distance >= -window)
    ours = partial(fw.scaled_dot_product_attention, is_causal=True, window=(window, 0))
    flops = 4.0 * 8 * length * window * 64
    inputs = _random(shape, shape, shape, shape)
    name = "1x8x4096x64-window256"
    cases = _both("attention", name, flops, 3.5, inputs, ours, _masked(plain, mask))
    yield from _flexible(cases, lambda _b, _h, q, k: (k <= q) & (k >= q - window))

    lengths_of = _packed_lengths()
    total, longest = sum(lengths_of), max(lengths_of)
    ends = torch.tensor([0, *lengths_of]).cumsum(0)
    places = torch.cat([torch.arange(size) + row * longest for row, size in enumerate(lengths_of)])
    here = (torch.arange(longest) < torch.tensor(lengths_of)[:, None])[:, None, None, :]

    def padded(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        def spread(packed: torch.Tensor) -> torch.Tensor:
            rows = packed.new_zeros(len(lengths_of) * longest, *packed.shape[1:])
            return rows.index_copy(0, places, packed).unflatten(0, (-1, longest)).transpose(1, 2)

        output = plain(spread(query), spread(key), spread(value), here)
        return output.transpose(1, 2).flatten(0, 1)[places]

    def packed(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return fw.varlen_attention(query, key, value, ends, ends)

    shape = (total, 8, 64)
    flops = 4.0 * 8 * 64 * sum(size**2 for size in lengths_of)
    inputs = _random(shape, shape, shape, shape)
    name, row = "32x8x16to512x64-packed", torch.repeat_interleave(torch.tensor(lengths_of))
    cases = _both("attention", name, flops, 3.5, inputs, packed, padded)
    yield from _flexible(cases, lambda _b, _h, q, k: row[q] == row[k])

    query, key = (8, 8, 128, 64), (8, 8, 2048, 64)
    flops = 4.0 * 8 * 8 * 128 * 2048 * 64
    inputs = _random(query, key, key, query)
    ours = fw.scaled_dot_product_attention
    yield from _both("attention", "8x8x128to2048x64", flops, 3.5, inputs, ours, plain)


def _masked(
    attention: Callable[..., torch.Tensor], mask: torch.Tensor
) -> Callable[..., torch.Tensor]:
    def call(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        own = mask if mask.dtype == torch.bool else mask.to(query.dtype)
        return attention(query, key, value, own)

    return call


@operator
def decode() -> Iterator[Case]:
    batch, heads, kv_heads, key_len, head_dim = 8, 32, 8, 8192, 128
    cache = (batch, kv_heads, key_len, head_dim)
    ours = partial(fw.scaled_dot_product_attention, enable_gqa=True)
    rival = partial(functional.scaled_dot_product_attention, enable_gqa=True)
    for dtype in (torch.float32, torch.bfloat16):
        query = (batch, heads, 1, head_dim)
        yield Case(
            operator="decode-inference",
            shape=f"{batch}x{heads}over{kv_heads}x{key_len}x{head_dim}",
            flops=4.0 * batch * heads * key_len * head_dim,
            inputs=_random(query, cache, cache, query),
            ours=_inference(ours),
            rival=_inference(rival),
            dtype=dtype,
            bytes_read=2.0 * batch * kv_heads * key_len * head_dim * dtype.itemsize,
        )


LINEAR_SHAPES = [
    # (rows, in_features, out_features)
    (1024, 1024, 1024),
    (768, 128, 384),
    (4096, 384, 1536),
    (4096, 1536, 384),
    (100, 77, 130),
    (1, 4096, 1024),
]


@operator
def linear() -> Iterator[Case]:
    for rows, in_features, out_features in LINEAR_SHAPES:
        inputs = _random(
            (rows, in_features), (out_features, in_features), (out_features,), (rows, out_features)
        )
        name = f"{rows}x{in_features}x{out_features}"
        flops = 2.0 * rows * in_features * out_features
        for dtype in (torch.float32, torch.bfloat16):
            yield from _both(
                "linear", name, flops, 3.0, inputs, fw.linear, functional.linear, dtype
            )


RECURRENT_SHAPES = [
    # (seq_len, batch, input_size, hidden_size)
    (1, 1, 256, 256),
    (64, 1, 256, 256),
    (64, 16, 128, 128),
    (64, 32, 256, 256),
    (128, 64, 512, 512),
    (35, 20, 650, 650),
    (512, 8, 1024, 1024),
]
PACKED_SHAPE = (200, 32, 128, 256)
"""The longest of sequences of 20 to 200 steps, packed."""
STACKED_SHAPE = (64, 32, 256, 256)
"""Two layers in both directions."""

CELLS = {"rnn": 1, "gru": 3, "lstm": 4}
"""The gates of each cell."""


def _recurrent(
    library: Any, cell: str, sizes: tuple[int, int], lengths: torch.Tensor | None, layers: int
) -> Callable[..., torch.Tensor]:
    """The layer of a library as a function of its input and its parameters."""
    options: dict[str, Any] = {"num_layers": layers, "bidirectional": layers > 1}
    modules = {
        dtype: getattr(library, cell.upper())(*sizes, **options, dtype=dtype)
        for dtype in (torch.float32, torch.float64, torch.bfloat16)
    }

    def forward(input: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        module = modules[input.dtype]
        names = [name for name, _ in module.named_parameters()]
        rows = input if lengths is None else pack_padded_sequence(input, lengths)
        output, _ = torch.func.functional_call(
            module, dict(zip(names, weights, strict=True)), (rows,)
        )
        return output if lengths is None else output.data

    return forward


def _weights_scaled(
    inputs: Callable[[torch.dtype], Tensors], hidden_size: int
) -> Callable[[torch.dtype], Tensors]:
    """Weights of the size that training starts from, so that the cells do not saturate."""

    def make(dtype: torch.dtype) -> Tensors:
        first, *weights, grad_output = inputs(dtype)
        return (first, *(weight * hidden_size**-0.5 for weight in weights), grad_output)

    return make


def _recurrent_cases(
    cell: str, shape: tuple[int, int, int, int], lengths: torch.Tensor | None, layers: int
) -> Iterator[Case]:
    seq_len, batch, input_size, hidden_size = shape
    directions = 2 if layers > 1 else 1
    gates = CELLS[cell] * hidden_size
    total = seq_len * batch if lengths is None else int(lengths.sum())
    shapes: list[tuple[int, ...]] = [(seq_len, batch, input_size)]
    flops = 0.0
    for layer in range(layers):
        width = input_size if layer == 0 else directions * hidden_size
        shapes += directions * [(gates, width), (gates, hidden_size), (gates,), (gates,)]
        flops += 2.0 * total * directions * gates * (width + hidden_size)
    width = directions * hidden_size
    shapes.append((seq_len, batch, width) if lengths is None else (total, width))
    name = "x".join(map(str, shape))
    name += "-packed" if lengths is not None else "-stacked" if layers > 1 else ""
    arguments = (cell, (input_size, hidden_size), lengths, layers)
    inputs = _weights_scaled(_random(*shapes), hidden_size)
    ours, rival = _recurrent(fw.nn, *arguments), _recurrent(torch.nn, *arguments)
    inference, training = _both(cell, name, flops, 3.0, inputs, ours, rival)
    if onnx_runtime.is_installed():
        build = partial(onnx_runtime.recurrent, cell, lengths, layers)
        inference = replace(inference, others={"onnxruntime": build})
    if seq_len == 1:
        weights = sum(math.prod(shape) for shape in shapes if len(shape) == 2)
        inference = replace(inference, bytes_read=4.0 * weights)
        half = torch.bfloat16
        yield replace(inference, dtype=half, bytes_read=2.0 * weights, others={})
    yield from (inference, training)


@operator
def recurrent() -> Iterator[Case]:
    lengths = torch.linspace(200, 20, PACKED_SHAPE[1]).long()
    for cell in CELLS:
        for shape in RECURRENT_SHAPES:
            yield from _recurrent_cases(cell, shape, None, 1)
        yield from _recurrent_cases(cell, PACKED_SHAPE, lengths, 1)
        yield from _recurrent_cases(cell, STACKED_SHAPE, None, 2)
