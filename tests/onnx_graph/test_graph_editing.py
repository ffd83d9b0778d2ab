"""Pruning a graph: nodes inside branches count, too."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from edgetl.onnx_graph.graph_editing import prune


def test_only_what_leads_to_the_outputs_is_kept_with_what_branches_use() -> None:
    inner, outer, result = (
        helper.make_empty_tensor_value_info(name) for name in ("inner", "returned", "result")
    )
    branch = helper.make_graph(
        [helper.make_node("Neg", ["outer"], ["inner"])], "branch", [], [inner]
    )
    other = helper.make_graph([], "other", [], [outer])
    nodes = [
        helper.make_node("Abs", ["x"], ["outer"]),
        helper.make_node("Abs", ["y"], ["returned"]),
        helper.make_node("Abs", ["z"], ["unused"]),
        helper.make_node("If", ["condition"], ["result"], then_branch=branch, else_branch=other),
        helper.make_node("Abs", ["result"], ["unused too"]),
    ]
    constants = [numpy_helper.from_array(np.zeros(1, np.float32), name) for name in ("x", "y", "z")]
    graph = helper.make_graph(nodes, "graph", [], [result], constants)
    prune(graph)
    assert [list(node.output) for node in graph.node] == [["outer"], ["returned"], ["result"]]
    assert [tensor.name for tensor in graph.initializer] == ["x", "y"]
