"""How many threads kernels use, and what they run on."""

from __future__ import annotations

import sys

from fusewire import _native


def set_num_threads(threads: int) -> None:
    """Sets how many threads kernels use, PyTorch's own operators included where it is imported.

    Results do not depend on it. Once PyTorch is imported its own count holds for both libraries.

    Args:
        threads: At least 1.

    Raises:
        ValueError: If `threads` is less than 1.

    Example:
        >>> import fusewire as fw
        >>> threads = fw.get_num_threads()
        >>> fw.set_num_threads(threads)
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, but is {threads}")
    _native.set_num_threads(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def get_num_threads() -> int:
    """How many threads kernels use: PyTorch's count where it is imported.

    Returns:
        At least 1.
    """
    torch = sys.modules.get("torch")
    return _native.get_num_threads() if torch is None else int(torch.get_num_threads())


def show_config() -> None:
    """Prints what kernels run on: instruction set, threads, versions, build."""
    facts = dict(_native.config())
    for library in ("numpy", "torch"):
        module = sys.modules.get(library)
        facts[library] = "not imported" if module is None else module.__version__
    facts["python"] = sys.version.split()[0]
    facts["threads"] = get_num_threads()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
