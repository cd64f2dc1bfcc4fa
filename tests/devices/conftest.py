"""Devices that this machine has: the CPU, which our kernels serve, and perhaps a GPU."""

import pytest
import torch

from fusewire.ops.attention import flex

GPU = ["cuda"] * torch.cuda.is_available()


@pytest.fixture(autouse=True)
def exact_recurrent_layers():
    """Where there is a GPU: unless it is told not to, cuDNN rounds their factors to ten bits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture(params=["cpu", *GPU])
def device(request):
    return request.param


@pytest.fixture(params=["cpu", *GPU, *(f"{gpu} with FlexAttention" for gpu in GPU)])
def attention_device(request, monkeypatch):
    """A device; on a GPU also with FlexAttention for scores of any size."""
    device, _, flexible = request.param.partition(" ")
    if flexible:
        monkeypatch.setattr(flex, "_LARGE", 0)
    return device
