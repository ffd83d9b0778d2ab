"""An exported model without its resize, for runtimes that compute the resize themselves."""

from __future__ import annotations

from copy import deepcopy

import onnx

from edgetl.onnx_graph.graph_editing import prune, replace_nodes
from edgetl.runtime.bundle.tensor_names import RESIZED


def cut_at_resized(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` from ``resized`` uint8 [N, h, w, 3] to the same outputs.

    The resize computes in double precision, for which the WebGPU builds of onnxruntime have no
    kernels; the rest of the graph is float32, float16 or integer. The metadata is left out: whoever
    reads labels and preprocessing there expects an input ``images``.
    """
    cut = deepcopy(model)
    graph = cut.graph
    resized = next(value for value in graph.value_info if value.name == RESIZED)
    del graph.input[:]
    graph.input.append(resized)
    graph.value_info.remove(resized)
    replace_nodes(graph, [node for node in graph.node if RESIZED not in node.output])
    prune(graph)
    del cut.metadata_props[:]
    onnx.checker.check_model(cut)
    return cut
