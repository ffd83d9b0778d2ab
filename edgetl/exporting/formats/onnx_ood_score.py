"""The embedding and the out-of-distribution score as ONNX operators, always in float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgetl.onnx_graph.graph_writer import GraphWriter, Value
from edgetl.runtime.bundle.tensor_names import EMBEDDING, FEATURES, LOGITS, OOD_SCORE
from edgetl.training.models.ood_detector import LEAST_LENGTH, SOFTENING, OODDetector


def write_ood_score(graph: GraphWriter, detector: OODDetector, opset: int) -> None:
    """Write ``embedding`` float32 [N, dimensions] and ``ood_score`` float32 [N].

    They come from ``features`` float32 [N, features] and ``logits`` float32 [N, classes], which the
    graph has. The names in here are those of OODDetector's formula.
    """

    def reduce(kind: str, value: Value, keepdims: bool = False) -> str:
        """Over the last of two axes, which is an attribute up to some opset, and then an input."""
        if opset < (13 if kind == "ReduceSum" else 18):
            return graph.op(kind, value, axes=[1], keepdims=int(keepdims))
        return graph.op(kind, value, np.array([1]), keepdims=int(keepdims))

    def stored(matrix: NDArray[np.float32]) -> Value:
        """In half of the bytes if its values allow, as a fitted detector's do."""
        half = matrix.astype(np.float16)
        return graph.cast(half, np.float32) if np.array_equal(half, matrix) else matrix

    def standardized(value: str, mean: float, std: float) -> str:
        return graph.op("Div", graph.op("Sub", value, np.float32(mean)), np.float32(std))

    length = reduce("ReduceL2", FEATURES, keepdims=True)
    direction = graph.op("Div", FEATURES, graph.op("Max", length, np.float32(LEAST_LENGTH)))
    u = graph.op("Sub", direction, detector.mean)
    graph.op("MatMul", u, stored(detector.projection), output=EMBEDDING)
    products = graph.op("MatMul", EMBEDDING, stored(-2 * detector.centres.T))
    nearest = reduce("ReduceMin", graph.op("Add", products, detector.centre_squares))
    distance = graph.op("Add", reduce("ReduceSum", graph.op("Mul", u, u)), nearest)
    log_q = graph.op("LogSoftmax", graph.op("Div", LOGITS, np.float32(SOFTENING)), axis=1)
    entropy = graph.op("Neg", reduce("ReduceSum", graph.op("Mul", graph.op("Exp", log_q), log_q)))
    graph.op(
        "Add",
        standardized(distance, detector.distance_mean, detector.distance_std),
        standardized(entropy, detector.entropy_mean, detector.entropy_std),
        output=OOD_SCORE,
    )
