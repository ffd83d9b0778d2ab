"""What of a graph is needed: nodes inside branches count, too."""

from __future__ import annotations

from onnx import helper

from edgetl.onnx_graph.pruning import needed


def test_only_what_leads_to_the_outputs_is_kept_with_what_branches_use() -> None:
    inner, outer = (helper.make_empty_tensor_value_info(name) for name in ("inner", "handed_out"))
    branch = helper.make_graph(
        [helper.make_node("Neg", ["outer"], ["inner"])], "branch", [], [inner]
    )
    other = helper.make_graph([], "other", [], [outer])
    nodes = [
        helper.make_node("Abs", ["x"], ["outer"]),
        helper.make_node("Abs", ["y"], ["handed_out"]),
        helper.make_node("Abs", ["z"], ["unused"]),
        helper.make_node("If", ["condition"], ["result"], then_branch=branch, else_branch=other),
        helper.make_node("Abs", ["result"], ["unused too"]),
    ]
    kept, used = needed(nodes, ["result"])
    assert [list(node.output) for node in kept] == [["outer"], ["handed_out"], ["result"]]
    assert {"x", "y", "condition", "result"} <= used
    assert not {"z", "unused"} & used
