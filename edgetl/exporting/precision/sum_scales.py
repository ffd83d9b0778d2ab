"""Scales with which a sum of two 8-bit values never lies halfway between two integers.

The sum of a and b is (a·Sa + b·Sb) / Sc, rounded. Kernels for x86, ARM and WebAssembly compute that
with different precision and round ties differently. If the three scales are odd multiples of one
unit, the exact sum is a whole number divided by an odd one: with k units in Sc, it is at least
1 / 2k away from a tie, which is more than any kernel's error as long as k is below a thousand.
Sums inside convolutions are exact integers, which all kernels scale and round alike.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

UNITS = 511  # in the largest scale of tensors that sums connect; odd

Override = list[dict[str, Any]]
"""A tensor's scale and zero point as the quantizer's option TensorQuantOverrides takes them."""


def tie_free_scales(graph: onnx.GraphProto) -> dict[str, Override]:
    """Scales for the terms and the results of all sums, by name of the tensor.

    graph  as onnxruntime's QDQ quantizer writes it without these scales

    A scale grows by less than two units, so no value is cut off.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    by_source = {node.input[0]: node for node in quantizers}
    by_output = {node.output[0]: node for node in quantizers}
    quantized = {  # value that was quantized and dequantized → what it was before
        node.output[0]: by_output[node.input[0]].input[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in by_output
    }
    overrides: dict[str, Override] = {}
    for names in _connected(graph, quantized):
        values = {
            name: [numpy_helper.to_array(constants[x]).item() for x in by_source[name].input[1:]]
            for name in sorted(names)
        }
        unit = max(scale for scale, _ in values.values()) / UNITS
        for name, (scale, zero_point) in values.items():
            units = 2 * math.ceil((scale / unit - 1 - 1e-6) / 2) + 1  # the next odd number
            overrides[name] = [
                {
                    "scale": np.array(units * unit, np.float32),
                    "zero_point": np.array(round(zero_point * scale / (units * unit)), np.uint8),
                }
            ]
    return overrides


def _connected(graph: onnx.GraphProto, quantized: dict[str, str]) -> list[set[str]]:
    """Sets of quantized tensors that sums connect, as terms or as results."""
    groups: list[set[str]] = []
    sources = set(quantized.values())
    for node in graph.node:
        if node.op_type == "Add" and node.output[0] in sources and {*node.input} <= {*quantized}:
            together = {node.output[0], *(quantized[name] for name in node.input)}
            groups, touched = (
                [group for group in groups if not group & together],
                [group for group in groups if group & together],
            )
            groups.append(together.union(*touched))
    return groups
