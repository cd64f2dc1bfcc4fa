"""Recurrent layers and attention as ONNX Runtime computes them, where it is installed."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence

Tensors = tuple[torch.Tensor, ...]

OPSET = 23
"""The first with attention."""
_SINGLE = np.dtype(np.float32)

GATE_ORDER = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}
"""Of PyTorch's gates, as ONNX has them."""


def is_installed() -> bool:
    """Whether there is a rival of this name here."""
    return find_spec("onnx") is not None and find_spec("onnxruntime") is not None


def recurrent(
    cell: str, lengths: torch.Tensor | None, layers: int, inputs: Tensors, threads: int
) -> Callable[[], Tensors]:
    """The layers with these operands, ready to run.

    Args:
        cell: ``"rnn"``, ``"gru"`` or ``"lstm"``.
        lengths: Those of the sequences; None where all are equally long.
        layers: One in one direction, or more in both.
        inputs: The input ``(seq_len, batch, input_size)``, four parameters for each layer and
            direction, and one more tensor that is not looked at.
        threads: How many ONNX Runtime may use.

    Returns:
        A function that gives the output, of packed rows where there are lengths.
    """
    from onnx import helper, numpy_helper

    rows, *parameters, _ = inputs
    directions = 2 if layers > 1 else 1
    each = 4 * directions
    hidden_size = parameters[1].shape[1]
    order = GATE_ORDER[cell]

    def arranged(parameter: torch.Tensor) -> torch.Tensor:
        return parameter.reshape(len(order), hidden_size, -1)[order].flatten(0, 1).squeeze(-1)

    options = {"direction": "bidirectional" if directions == 2 else "forward"}
    if cell == "gru":
        options["linear_before_reset"] = 1
    constants = {"all_units": torch.tensor([0, 0, -1])}
    nodes = []
    below = "input"
    for layer in range(layers):
        entries = [parameters[layer * each :][start : start + 4] for start in range(0, each, 4)]
        weights = [[arranged(parameter) for parameter in entry] for entry in entries]
        names = [f"{kind}{layer}" for kind in ("W", "R", "B")]
        constants[names[0]] = torch.stack([entry[0] for entry in weights])
        constants[names[1]] = torch.stack([entry[1] for entry in weights])
        constants[names[2]] = torch.stack([torch.cat(entry[2:]) for entry in weights])
        operands = [below, *names, "lengths" if lengths is not None else ""]
        # (seq_len, directions, batch, units), and then a row's directions side by side.
        kind, results = cell.upper(), [f"by_direction{layer}"]
        nodes += [
            helper.make_node(kind, operands, results, hidden_size=hidden_size, **options),
            helper.make_node("Transpose", results, [f"by_row{layer}"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", [f"by_row{layer}", "all_units"], [f"output{layer}"]),
        ]
        below = f"output{layer}"
    feed = {"input": rows.numpy()}
    if lengths is not None:
        feed["lengths"] = lengths.int().numpy()
    initial = [numpy_helper.from_array(value.numpy(), name) for name, value in constants.items()]
    run = _session(nodes, below, feed, threads, initial)

    def packed() -> Tensors:
        (output,) = run()
        return (output if lengths is None else pack_padded_sequence(output, lengths).data,)

    return packed


def attention(is_causal: bool, inputs: Tensors, threads: int) -> Callable[[], Tensors]:
    """Attention of these operands, ready to run; of more heads than keys have where they share.

    Args:
        is_causal: Whether queries see only the keys up to their own.
        inputs: Query, key and value, and one more tensor that is not looked at.
        threads: How many ONNX Runtime may use.
    """
    from onnx import helper

    names = ["query", "key", "value"]
    node = helper.make_node("Attention", names, ["output"], is_causal=int(is_causal))
    operands = [tensor.numpy() for tensor in inputs[:3]]
    return _session([node], "output", dict(zip(names, operands, strict=True)), threads, [])


def _session(
    nodes: list[Any], output: str, feed: dict[str, Any], threads: int, constants: list[Any]
) -> Callable[[], Tensors]:
    import onnxruntime
    from onnx import helper

    def described(name: str, numbers: Any) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(numbers.dtype)
        return helper.make_tensor_value_info(name, kind, list(numbers.shape))

    taken = [described(name, numbers) for name, numbers in feed.items()]
    given = helper.make_tensor_value_info(output, helper.np_dtype_to_tensor_dtype(_SINGLE), None)
    graph = helper.make_graph(nodes, "benchmark", taken, [given], constants)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would spin behind its calls, on the cores that the next rival is timed on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: (torch.from_numpy(session.run(None, feed)[0]),)
