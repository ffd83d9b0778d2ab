"""Clears weights that change nothing but could make a sum overflow 32 bits.

A channel that always gives the same value has weights near 0, and beside their scale its bias is
close to the largest integer. Added to it, their products may wrap around from the lowest value to
the highest, though they are less than a thousandth of it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

_LIMIT = 2**31
_LARGEST_VALUE = 255


def clear_negligible_weights(graph: onnx.GraphProto) -> None:
    """Set the weights of channels whose sums could overflow to 0; their bias stays.

    graph  as onnxruntime's QDQ quantizer writes it; changed in place
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    stored = {
        node.output[0]: constants[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) > 2 and {*node.input[1:]} <= {*stored}:
            tensor, bias = (stored[name] for name in node.input[1:])
            weights = numpy_helper.to_array(tensor).copy()
            largest = _LARGEST_VALUE * np.abs(weights.astype(np.int64)).sum(
                axis=tuple(range(1, weights.ndim))
            )
            biases = np.abs(numpy_helper.to_array(bias).astype(np.int64))
            overflows = (largest + biases >= _LIMIT) & (largest < biases / 1000)
            if overflows.any():
                weights[overflows] = 0
                tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
