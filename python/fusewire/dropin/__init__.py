"""Our kernels inside models that exist already.

``fw.enable()`` lets PyTorch's own attention run them, ``fw.fuse(model)`` the recurrent and
attention modules of a model, `fusewire.dropin.transformers` the models of Hugging Face, and
`fusewire.dropin.flash_attn` code that was written for flash-attn.
"""

from fusewire.dropin.modules import Fusion, fuse
from fusewire.dropin.sdpa import disable, enable, enabled

__all__ = ["Fusion", "disable", "enable", "enabled", "fuse"]
