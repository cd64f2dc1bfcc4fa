"""PyTorch's own attention on the CPU, computed by our kernels for as long as that is enabled.

`torch.nn.functional.scaled_dot_product_attention` ends in one of two operators: a fused one,
which the extension module replaces beneath PyTorch's autograd, or, where that refuses (dropout, a
mask that wants a gradient, values of another size than queries, strided last dimensions), one
composed of matrix products, which is replaced here. Everything else of PyTorch stays what it is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fusewire import _native
from fusewire.dropin import fastpath
from fusewire.ops.attention import scaled_dot_product_attention
from fusewire.ops.door import attach

_FLOATS = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})
_COMPOSED = torch.ops.aten._scaled_dot_product_attention_math.default
_FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"
_REPLACED = (_COMPOSED.name(), _FUSED, f"{_FUSED}_backward")

_lock = threading.RLock()
_owners: set[object] = set()
_libraries: list[torch.library.Library] = []
_retired: deque[object] = deque(maxlen=20_000)
"""Kernels that were taken away, for threads that run one or wait for the interpreter to enter it.

So many that these have long ended before the first is forgotten."""


def enable() -> None:
    """Lets PyTorch's own attention on the CPU run our kernels, forward and backward.

    Holds for the whole process until :func:`disable`, for whoever calls
    `torch.nn.functional.scaled_dot_product_attention`, and for the inference fast path of
    `torch.nn.MultiheadAttention` and `torch.nn.TransformerEncoderLayer`. PyTorch's autograd,
    autocast and `torch.compile` go on as before; so do other devices, and what is asked to run
    without fused kernels (``sdpa_kernel(SDPBackend.MATH)``). A second call changes nothing.

    Other threads had better not call PyTorch's attention in the moment in which it is replaced or
    given back: PyTorch's dispatcher does not guard its tables against that, so that such a call may
    fail, or the process with it. Enable it once, before there are threads.

    Raises:
        RuntimeError: If PyTorch is older than 2.10.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> fw.enable()
        >>> x = torch.ones(1, 1, 2, 4)
        >>> torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True).sum()
        tensor(8.)
        >>> fw.disable()
    """
    _hold(enable)


def disable() -> None:
    """Gives PyTorch its own attention back; see :func:`enable`."""
    with _lock:
        _owners.clear()
        _settle()


@contextmanager
def enabled() -> Iterator[None]:
    """Like :func:`enable`, for the length of a `with` block.

    Blocks may be nested and may overlap in threads: the last one to end gives PyTorch its attention
    back, but where :func:`enable` was called before. Where threads come and go, call that once, for
    what is told there of calls in the moment of a change.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> x = torch.ones(1, 1, 2, 4)
        >>> with fw.enabled():
        ...     y = torch.nn.functional.scaled_dot_product_attention(x, x, x)
    """
    owner = object()
    _hold(owner)
    try:
        yield
    finally:
        _release(owner)


class _Activation:
    """What `torch.nn.attention.activate_flash_attention_impl("fusewire")` holds."""

    def __init__(self) -> None:
        _hold(self)

    def remove(self) -> None:
        _release(self)


# A name in PyTorch's list of implementations; nothing happens before it is activated.
torch.nn.attention.register_flash_attention_impl("fusewire", register_fn=_Activation)


def _hold(owner: object) -> None:
    with _lock:
        _owners.add(owner)
        try:
            _settle()
        except BaseException:
            _owners.discard(owner)
            raise


def _release(owner: object) -> None:
    with _lock:
        _owners.discard(owner)
        _settle()


def _settle() -> None:
    """Makes PyTorch's dispatcher what the owners want it to be."""
    if _owners and not _libraries:
        attach(torch)
        _native.replace_sdpa(True)
        # Other threads may call between any two of these lines. Without the kernel that has
        # gradients the other one would have none, so it comes first and goes last.
        for key in ("AutogradCPU", "CPU"):
            library = torch.library.Library("aten", "IMPL")
            library.impl(_COMPOSED.name(), _composed_attention, key)
            _libraries.append(library)
        fastpath.replace(_libraries[-1])
    elif not _owners and _libraries:
        replaced = [(_COMPOSED.name(), "AutogradCPU"), *((name, "CPU") for name in _REPLACED)]
        replaced += fastpath.REPLACED
        _retired.extend(torch.library.get_kernel(name, key) for name, key in replaced)
        while _libraries:
            _libraries.pop()._destroy()
        _native.replace_sdpa(False)


def _composed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    dropout_mask: torch.Tensor | None = None,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`aten::_scaled_dot_product_attention_math`; the weights, which nobody reads, are left out."""
    simple = dropout_mask is None and 0 <= dropout_p <= 1
    if simple and _is_ours(query, key, value, attn_mask, is_causal, enable_gqa):
        output = scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
        )
        return output, query.new_empty(0)
    results: tuple[torch.Tensor, torch.Tensor] = _COMPOSED.decompose(
        query,
        key,
        value,
        attn_mask,
        dropout_p,
        is_causal,
        dropout_mask,
        scale=scale,
        enable_gqa=enable_gqa,
    )
    return results


def _is_ours(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    is_causal: bool,
    enable_gqa: bool,
) -> bool:
    """Whether our operator serves the call; PyTorch tells what is wrong with the others."""
    if not torch.backends.cuda.flash_sdp_enabled():
        return False  # The caller wants what is composed.
    kinds = {operand.dtype for operand in (query, key, value)}
    if len(kinds) != 1 or not kinds <= _FLOATS or query.dim() < 2:
        return False
    if attn_mask is not None and (is_causal or attn_mask.dtype not in {torch.bool, *kinds}):
        return False
    if query.shape[:-2] != key.shape[:-2]:
        grouped = enable_gqa and query.dim() > 3 and query.dim() == key.dim()
        if not grouped or query.shape[:-3] != key.shape[:-3]:
            return False
        if not key.shape[-3] or query.shape[-3] % key.shape[-3]:
            return False
    return query.shape[-1] == key.shape[-1] and key.shape[:-1] == value.shape[:-1]
