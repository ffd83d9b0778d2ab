"""Turns means over all places of an image into global average pools, which have an 8-bit kernel.

Without it, the quantized values are turned into floats and added up in an order of each
processor's own.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgetl.onnx_graph.graph_editing import int_attribute, replace_nodes

_PLACES = ([2, 3], [-2, -1])


def pool_means(model: onnx.ModelProto) -> None:
    """Replace every mean of [N, channels, h, w] over h and w, in place."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input)
    }
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        is_mean = node.op_type == "ReduceMean" and ranks.get(node.input[0]) == 4
        if is_mean and sorted(_axes(node, constants)) in _PLACES:
            nodes += _pool(node)
        else:
            nodes.append(node)
    replace_nodes(model.graph, nodes)


def _axes(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> list[int]:
    """An attribute up to opset 17, and then an input."""
    if len(node.input) > 1:
        tensor = constants.get(node.input[1])
        return [] if tensor is None else np.ravel(numpy_helper.to_array(tensor)).tolist()
    return next((list(entry.ints) for entry in node.attribute if entry.name == "axes"), [])


def _pool(mean: onnx.NodeProto) -> list[onnx.NodeProto]:
    keeps = int_attribute(mean, "keepdims", 1)
    (source, *_), (result,) = mean.input, mean.output
    pooled = result if keeps else f"{result}/pooled"
    nodes = [helper.make_node("GlobalAveragePool", [source], [pooled], name=mean.name)]
    if not keeps:
        name = f"{mean.name}/Flatten" if mean.name else ""
        nodes.append(helper.make_node("Flatten", [pooled], [result], name=name, axis=1))
    return nodes
