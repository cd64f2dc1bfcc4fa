"""Attention as OpenVINO computes it, where it is installed."""

from collections.abc import Callable
from importlib.util import find_spec

import torch

Tensors = tuple[torch.Tensor, ...]


def is_installed() -> bool:
    """Whether there is a rival of this name here."""
    return find_spec("openvino") is not None


def attention(is_causal: bool, inputs: Tensors, threads: int) -> Callable[[], Tensors]:
    """Attention of these operands, ready to run.

    Args:
        is_causal: Whether queries see only the keys up to their own.
        inputs: Query, key and value, and one more tensor that is not looked at.
        threads: How many OpenVINO may use.
    """
    import openvino
    from openvino import opset13

    operands = [tensor.numpy() for tensor in inputs[:3]]
    parameters = [opset13.parameter(numbers.shape, numbers.dtype) for numbers in operands]
    node = opset13.scaled_dot_product_attention(*parameters, causal=is_causal)
    # In single precision, which it would leave where the CPU has something shorter.
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(openvino.Model([node], parameters), "CPU", options)
    request = model.create_infer_request()

    def run() -> Tensors:
        request.infer(operands, share_inputs=True)
        return (torch.from_numpy(request.get_output_tensor().data.copy()),)

    return run
