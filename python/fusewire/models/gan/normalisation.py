"""Batch norm whose batch is that of all processes together."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce

from fusewire.errors import InputError


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    r"""Normalises each channel by mean and variance over the batch and all places.

    :math:`y = γ (x - μ) / \sqrt{σ^2 + ε} + β`

    As `torch.nn.BatchNorm2d` in one process. In many, :math:`μ` and :math:`σ` are those of the
    whole batch, so that a step is the step of one process with all rows; PyTorch's
    `SyncBatchNorm` does so on GPUs only, and has no second derivatives.

    Args:
        num_features: channels.

    Example:
        >>> BatchNorm(3)(torch.rand(2, 3, 4, 5)).shape
        torch.Size([2, 3, 4, 5])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Returns what has the shape of `input`, (batch, channels, ...).

        Raises:
            InputError: in training, there is one number for each channel, which varies in nothing.
        """
        if not self.training:
            return super().forward(input)
        processes = distributed.get_world_size() if distributed.is_initialized() else 1
        places = [0, *range(2, input.ndim)]
        count = input.numel() // input.shape[1] * processes
        if count == 1:
            raise InputError(
                "batch norm cannot learn from one number of each channel; take a larger batch, or "
                'networks without it (generator_norm and discriminator_norm "none")'
            )
        if processes == 1:
            return super().forward(input)
        mean = all_reduce(input.sum(places)) / count  # type: ignore[no-untyped-call]
        column = (-1, *(1,) * (input.ndim - 2))
        centred = input - mean.view(column)
        variance = all_reduce(centred.square().sum(places)) / count  # type: ignore[no-untyped-call]
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum or 0.0)
        scaled = centred * (variance + self.eps).rsqrt().view(column)
        output: Tensor = scaled * self.weight.view(column) + self.bias.view(column)
        return output

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (batch, channels, ...), got {tuple(input.shape)}")
