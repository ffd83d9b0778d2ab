"""Takes out of a network's graph what depends on nothing but the input's size, where that size is fixed.

Padding that is worked out for each input ("same" padding, mostly) is written by torch's exporter as dozens of small
nodes that compute the same numbers in every run. They cost time, and a quantizer would round those numbers.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgetl.onnx_graph.pruning import needed
from edgetl.runtime.inference.session import open_session

BATCHES = (1, 2, 5)  # a value that is the same for all of them does not depend on the batch size
MOST_ELEMENTS = 4096  # of a value; shapes and paddings have a handful


def fold_shapes(network: onnx.ModelProto, input_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """``network`` with its batch size free and all else of its input fixed: [channels, height, width]."""
    names = _known_before_the_data(network.graph)
    constants = _same_for_every_batch(network, names, input_shape) if names else {}
    kept = [node for node in network.graph.node if not constants.keys() >= set(node.output)]
    kept, used = needed(kept, [value.name for value in network.graph.output])
    folded = onnx.ModelProto()
    folded.CopyFrom(network)
    initializers = [tensor for tensor in network.graph.initializer if tensor.name in used]
    initializers += [
        numpy_helper.from_array(value, name) for name, value in constants.items() if name in used
    ]
    for field, values in (("node", kept), ("initializer", initializers)):
        del getattr(folded.graph, field)[:]
        getattr(folded.graph, field).extend(values)
    return folded


def _known_before_the_data(graph: onnx.GraphProto) -> list[str]:
    """Values made of shapes and small constants alone."""
    small = {tensor.name for tensor in graph.initializer if np.prod(tensor.dims) <= MOST_ELEMENTS}
    known: list[str] = []
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            continue
        if node.op_type == "Shape" or small.union(known, [""]).issuperset(node.input):
            known += node.output
    return known


def _same_for_every_batch(
    network: onnx.ModelProto, names: list[str], input_shape: tuple[int, int, int]
) -> dict[str, NDArray[np.generic]]:
    shown = onnx.ModelProto()
    shown.CopyFrom(network)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(shown.SerializeToString(), providers="cpu", optimize=False)
    source = network.graph.input[0].name
    runs = [
        session.run(names, {source: np.zeros((batch, *input_shape), np.float32)})
        for batch in BATCHES
    ]
    return {
        name: values[0]
        for name, values in zip(names, zip(*runs, strict=True), strict=True)
        if values[0].size <= MOST_ELEMENTS
        and all(np.array_equal(values[0], other) for other in values[1:])
    }
