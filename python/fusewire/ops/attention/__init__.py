"""Scaled dot-product attention: padded and packed batches, forward and backward."""

from fusewire.ops.attention.backward import (
    scaled_dot_product_attention_backward,
    varlen_attention_backward,
)
from fusewire.ops.attention.options import CausalAlignment
from fusewire.ops.attention.packed import varlen_attention
from fusewire.ops.attention.padded import scaled_dot_product_attention
from fusewire.ops.attention.paged import paged_attention

__all__ = [
    "CausalAlignment",
    "paged_attention",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_backward",
    "varlen_attention",
    "varlen_attention_backward",
]
