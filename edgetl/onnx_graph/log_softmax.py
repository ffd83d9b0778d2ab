"""Turns the logarithm of a softmax into the one operator that computes it without losing digits.

In a reduced precision, the probabilities in between would be rounded to 0, or to steps of 1/256.
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from edgetl.onnx_graph.graph_editing import prune

MAX_CLIP = 1e-30  # a probability that float32 hardly ever goes below; clipping there is no change


def merge_log_softmax(model: onnx.ModelProto) -> None:
    """Make an output ``Log(Clip(Softmax(x)))``, as of an imported network, ``LogSoftmax(x)``."""
    graph = model.graph
    for output in graph.output:
        if tail := _log_of_softmax(graph, output.name):
            log, softmax = tail
            log.CopyFrom(softmax)
            log.op_type, log.output[0] = "LogSoftmax", output.name
            prune(graph)


def _log_of_softmax(
    graph: onnx.GraphProto, name: str
) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """(the logarithm, the softmax) that the value ``name`` is computed by; None for another one."""
    producers = {name: node for node in graph.node for name in node.output}
    chain = []
    for kind in ("Log", "Clip", "Softmax"):
        node = producers.get(name)
        if node is None or node.op_type != kind:
            return None
        chain.append(node)
        name = node.input[0]
    log, clip, softmax = chain
    limits = [tensor for tensor in graph.initializer if tensor.name in clip.input[1:]]
    if len(limits) != 1 or numpy_helper.to_array(limits[0]).max() > MAX_CLIP:
        return None
    return log, softmax
