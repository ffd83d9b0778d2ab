"""The logarithm of a softmax as one operator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.onnx_graph.log_softmax import merge_log_softmax
from edgetl.runtime.inference.session import open_session


def network(kinds: tuple[str, ...], smallest: float = 1e-37) -> onnx.ModelProto:
    names = ["x", *(f"value{place}" for place in range(1, len(kinds))), "logits"]
    nodes = [
        helper.make_node(
            kind,
            [source, "smallest"] if kind == "Clip" else [source],
            [target],
            **({"axis": 1} if kind == "Softmax" else {}),
        )
        for kind, source, target in zip(kinds, names, names[1:], strict=False)
    ]
    graph = helper.make_graph(
        nodes,
        "tail",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.array(smallest, np.float32), "smallest")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def run(model: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    return open_session(model.SerializeToString(), providers="cpu").run(["logits"], {"x": values})[
        0
    ]


def test_the_merged_operator_gives_the_same_values_and_keeps_small_ones() -> None:
    model = network(("Softmax", "Clip", "Log"))
    values = np.array([[1, 2, 3], [0, 0, 50], [-4, 4, 0]], np.float32)
    before = run(model, values)
    merge_log_softmax(model)
    assert [node.op_type for node in model.graph.node] == ["LogSoftmax"]
    assert not model.graph.initializer
    np.testing.assert_allclose(run(model, values), before, rtol=1e-5, atol=1e-6)
    assert run(model, np.array([[0, 0, 500]], np.float32))[0, 0] == -500


@pytest.mark.parametrize(
    ("kinds", "smallest"),
    [
        (("Softmax", "Clip", "Log"), 1e-7),  # which changes answers
        (("Softmax",), 1e-37),
        (("Softmax", "Log"), 1e-37),
        (("Sigmoid", "Clip", "Log"), 1e-37),
        (("Softmax", "Clip", "Log", "Neg"), 1e-37),
    ],
)
def test_other_tails_stay_as_they_are(kinds: tuple[str, ...], smallest: float) -> None:
    model = network(kinds, smallest)
    merge_log_softmax(model)
    assert tuple(node.op_type for node in model.graph.node) == kinds
