"""Our kernels inside models that exist already.

``fw.enable()`` lets PyTorch's own attention run them.
"""

from fusewire.dropin.sdpa import disable, enable, enabled

__all__ = ["disable", "enable", "enabled"]
