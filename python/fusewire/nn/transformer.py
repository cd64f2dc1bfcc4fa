"""The encoder layer, whose inference would go around its attention."""

from __future__ import annotations

import torch

from fusewire.nn.symbolic import is_symbolic, recorded, refuse_script


class TransformerEncoderLayer(torch.nn.TransformerEncoderLayer):
    """`torch.nn.TransformerEncoderLayer`, which always calls its attention.

    Arguments, parameters and state_dict are those of the class of `torch.nn`. That hands them all
    to one operator of PyTorch's in inference; here the attention is a module in every mode, so
    that :func:`fusewire.fuse` can replace it.

    Example:
        >>> import torch
        >>> import fusewire as fw
        >>> layer = fw.nn.TransformerEncoderLayer(d_model=8, nhead=2, batch_first=True)
        >>> _ = fw.fuse(layer)
        >>> layer(torch.ones(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    __prepare_scriptable__ = refuse_script

    def forward(
        self,
        src: torch.Tensor,
        src_mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool = False,
    ) -> torch.Tensor:
        """See `torch.nn.TransformerEncoderLayer.forward`."""
        if is_symbolic(src):
            return recorded(self, src, src_mask, src_key_padding_mask, is_causal)  # type: ignore[no-any-return]

        def attend(x: torch.Tensor) -> torch.Tensor:
            return self._sa_block(x, src_mask, src_key_padding_mask, is_causal=is_causal)

        x = src
        if self.norm_first:
            x = x + attend(self.norm1(x))
            x = x + self._ff_block(self.norm2(x))
        else:
            x = self.norm1(x + attend(x))
            x = self.norm2(x + self._ff_block(x))
        return x
