"""Folds what depends only on the input's size into constants, where that size is fixed.

Padding that is computed for each input ("same" padding, mostly) is exported by torch as dozens of
small nodes that compute the same numbers in every run. They cost time, and a quantizer would round
those numbers. onnxruntime's own constant folding stops at the free batch size.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgetl.onnx_graph.graph_editing import prune, replace_nodes, with_outputs
from edgetl.runtime.inference.session import open_session

_BATCHES = (1, 2, 5)  # a value that is the same for all of them does not depend on the batch size
MAX_ELEMENTS = 4096  # of a value; shapes and paddings have a handful


def fold_shape_constants(
    network: onnx.ModelProto, input_shape: tuple[int, int, int]
) -> onnx.ModelProto:
    """A copy of ``network`` for inputs [N, *input_shape], ``input_shape`` being [3, h, w]."""
    candidates = _computed_from_shapes(network.graph)
    constants = _same_for_every_batch(network, candidates, input_shape) if candidates else {}
    folded = deepcopy(network)
    folded.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    nodes = [node for node in folded.graph.node if not constants.keys() >= set(node.output)]
    replace_nodes(folded.graph, nodes)
    prune(folded.graph)
    return folded


def _computed_from_shapes(graph: onnx.GraphProto) -> list[str]:
    """Names of the values that are computed from shapes and small constants alone."""
    small = {tensor.name for tensor in graph.initializer if np.prod(tensor.dims) <= MAX_ELEMENTS}
    names: list[str] = []
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            continue
        if node.op_type == "Shape" or small.union(names, [""]).issuperset(node.input):
            names += node.output
    return names


def _same_for_every_batch(
    network: onnx.ModelProto, names: list[str], input_shape: tuple[int, int, int]
) -> dict[str, NDArray[np.generic]]:
    """Those of the values ``names`` that are small and the same for batches of any size."""
    content = with_outputs(network, names).SerializeToString()
    session = open_session(content, providers="cpu", optimize=False)
    source = network.graph.input[0].name
    inputs = [np.zeros((batch, *input_shape), np.float32) for batch in _BATCHES]
    runs = [session.run(names, {source: zeros}) for zeros in inputs]
    return {
        name: values[0]
        for name, values in zip(names, zip(*runs, strict=True), strict=True)
        if values[0].size <= MAX_ELEMENTS
        and all(np.array_equal(values[0], other) for other in values[1:])
    }
