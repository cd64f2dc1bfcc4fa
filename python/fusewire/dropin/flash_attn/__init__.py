"""The functions of flash-attn, with its signatures and meaning, on our kernels.

Code written for GPUs runs on a CPU by one changed import. Tensors are ``(batch, length, heads,
head_dim)``; causal attention, windows and ALiBi are counted from the last query and the last key;
numbers may be of any floating type. All but :func:`flash_attn_with_kvcache` have gradients.
"""

from fusewire.dropin.flash_attn.cache import flash_attn_with_kvcache
from fusewire.dropin.flash_attn.padded import (
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
)
from fusewire.dropin.flash_attn.varlen import (
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
)

__all__ = [
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
]
