"""What a quantized network computes between two roundings to 8 bits, and how near that is to ties.

Every step takes 8-bit values, computes in integers or floats, and rounds its results to 8 bits.
There are few enough combinations of 8-bit values to try them all: a step is exact if none of its
results lies as close to halfway between two integers as kernels may err. They do err differently:
for x86, onnxruntime sums and averages in 32-bit floats, for ARM in integers scaled by a multiplier
of 22 or 24 bits, for WebAssembly in another order; and ties go to the even neighbour or away
from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgetl.onnx_graph.graph_editing import int_attribute
from edgetl.runtime.bundle.tensor_names import LOGITS
from edgetl.runtime.inference.session import open_session

Floats = NDArray[np.float64]
# Relative errors: 2^-24 is that of one rounding of a float32. Sums on ARM err by 2^-22 of the
# larger ratio of scales for each term, averages and products by 3 and 4 roundings.
_ARITHMETIC_ERROR = 2.0**-21
_FUNCTION_ERROR = 2.0**-18  # of exp, tanh …, which kernels approximate

_EXACT_LAYERS = ("Conv", "Gemm", "MatMul")
MOVES = (
    *("Concat", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Slice", "Split"),
    *("Squeeze", "Transpose", "Unsqueeze"),
)
_FUNCTIONS = (
    *("Abs", "Add", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish"),
    *("LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "Relu", "Selu", "Sigmoid"),
    *("Softplus", "Softsign", "Sqrt", "Sub", "Tanh"),
)


@dataclass(frozen=True)
class Scale:
    """Scale and zero point of a quantized tensor: value = (integer - zero_point) × size."""

    size: float
    zero_point: int

    def levels(self) -> Floats:
        """The 256 values that it stands for."""
        return (np.arange(256) - self.zero_point) * np.float64(self.size)

    def grown(self, size: float) -> Scale:
        """For the same values, with steps of another ``size``."""
        size = float(np.float32(size))
        return Scale(size, round(self.zero_point * self.size / size))


Scales = Mapping[str, Scale]
# From the scales of its inputs: the step's results as they would be without rounding, and a bound
# on what a kernel's result may be off by.
Results = Callable[[Scales], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Step:
    """One tensor that is rounded to 8 bits, and what it is computed from.

    result   the tensor
    name     for messages
    results  None for a layer: its integers are the same everywhere, and so is their one product
             with a float that is rounded; any other step with a ``problem`` has none either
    ratio    for steps whose results are whole numbers times ratio(scales), in float units
    problem  why machines may round it differently, whatever the scales are; "" if they don't
    """

    result: str
    name: str
    results: Results | None = None
    ratio: Callable[[Scales], float] | None = None
    problem: str = ""

    def is_exact(self, scales: Scales) -> bool:
        """Whether no result is near a tie, of those that are not cut off."""
        if self.results is None:
            return not self.problem
        values, errors = self.results(scales)
        scale = scales[self.result]
        rounded = values / scale.size + scale.zero_point
        near = np.abs(rounded - np.floor(rounded) - 0.5) <= errors / scale.size + 256 * 2.0**-24
        return not (near & (rounded > 0) & (rounded < 255)).any()


class QuantizedSteps:
    """The steps that the logits of a quantized network depend on, in order.

    model         as onnxruntime's QDQ quantizer writes it
    input_values  all values that the network's input takes; None: unknown
    """

    def __init__(self, model: onnx.ModelProto, input_values: NDArray[np.float32] | None) -> None:
        graph = onnx.shape_inference.infer_shapes(model).graph
        self._model, self._input_values = model, input_values
        self._makers = {name: node for node in graph.node for name in node.output}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        self._shapes = {
            value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in graph.value_info
        }
        # What was quantized and dequantized → the tensor before.
        self.sources = dict(self._dequantized(graph))
        self.scales = {name: self._scale(name) for name in {*self.sources.values()}}
        needed = self._needed()
        self.steps = [
            self._step(node.input[0])
            for node in graph.node
            if node.op_type == "QuantizeLinear" and node.input[0] in needed
        ]
        self.steps += self._last_layer()

    def _dequantized(self, graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
        for node in graph.node:
            if node.op_type == "DequantizeLinear":
                quantizer = self._makers.get(node.input[0])
                if quantizer is not None and quantizer.op_type == "Pad":  # of integers
                    quantizer = self._makers.get(quantizer.input[0])
                if quantizer is not None and quantizer.op_type == "QuantizeLinear":
                    yield node.output[0], quantizer.input[0]

    def _scale(self, tensor: str) -> Scale:
        quantizer = next(n for n in self._users[tensor] if n.op_type == "QuantizeLinear")
        size, zero_point = (
            numpy_helper.to_array(self._constants[name]).item() for name in quantizer.input[1:]
        )
        return Scale(float(size), int(zero_point))

    def _needed(self) -> set[str]:
        """Everything that the logits depend on."""
        found, waiting = {LOGITS}, [LOGITS]
        while waiting:
            node = self._makers.get(waiting.pop())
            fresh = {*node.input} - found if node is not None else set()
            found |= fresh
            waiting += fresh
        return found

    def _step(self, result: str) -> Step:
        node = self._makers.get(result)
        if node is None:
            values = self._input_values
            if values is None:
                return Step(result, result, problem="the values of its input are not known")
            return _table(result, result, lambda scales: values.astype(np.float64))
        name = node.name or result
        inputs = [self.sources[value] for value in node.input if value in self.sources]
        if node.op_type in _EXACT_LAYERS:
            return Step(result, name, problem=self._layer_problem(node, result))
        moved = node.input if node.op_type == "Concat" else node.input[:1]  # not shapes, axes …
        if node.op_type in MOVES and self.sources.keys() >= {*moved}:
            return _table(
                result, name, lambda scales: np.concatenate([scales[x].levels() for x in inputs])
            )
        if node.op_type == "GlobalAveragePool" and inputs:
            places = math.prod(self._shapes.get(node.input[0], [0])[2:])
            if not places:
                return Step(result, name, problem="an average over photos of any size")
            return _average(result, name, inputs[0], places)
        if node.op_type in ("Add", "Mul") and len({*inputs}) == 2:
            pair = _sum if node.op_type == "Add" else _product
            return pair(result, name, inputs[0], inputs[1])
        return self._function(result, name)

    def _layer_problem(self, node: onnx.NodeProto, result: str) -> str:
        """Why the layer's integers may differ from machine to machine; "" if they don't."""
        if node.input[0] not in self.sources:
            return "a layer in float"
        weights = self._stored(node.input[1])
        if weights is None or weights.dtype != np.int8:
            return "a layer in float"
        users = [user.op_type for user in self._users.get(result, [])]
        if result == LOGITS:
            if node.op_type != "Gemm":
                return f"{node.op_type} gives the logits, in an order of its own"
        elif users != ["QuantizeLinear"]:
            return f"a {node.op_type} whose result is used in float"
        groups = int_attribute(node, "group", 1)
        is_depthwise = groups > 1 and weights.shape[:2] == (groups, 1)
        magnitudes = np.abs(weights.astype(np.int64))
        if not is_depthwise and magnitudes.max(initial=0) > 64:
            return "weights of 8 bits, whose sums saturate on some processors"
        outputs_first = node.op_type == "Conv" or int_attribute(node, "transB", 0)
        terms = tuple(range(1, weights.ndim)) if outputs_first else -2
        largest = 255 * magnitudes.sum(terms)
        biases = self._stored(node.input[2]) if len(node.input) > 2 else None
        if biases is not None:
            largest = largest + np.abs(biases.astype(np.int64))
        return "" if largest.max(initial=0) < 2**31 else "sums that don't fit into 32 bits"

    def _stored(self, value: str) -> NDArray[np.generic] | None:
        """The integers of a constant that is dequantized."""
        node = self._makers.get(value)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        tensor = self._constants.get(node.input[0])
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _last_layer(self) -> list[Step]:
        node = self._makers.get(LOGITS)
        if node is None or node.op_type not in _EXACT_LAYERS:
            kind = "nothing" if node is None else node.op_type
            return [Step(LOGITS, LOGITS, problem=f"{kind} gives the logits")]
        return [Step(LOGITS, node.name or LOGITS, problem=self._layer_problem(node, LOGITS))]

    def _function(self, result: str, name: str) -> Step:
        """Of one quantized tensor, element by element, in float."""
        nodes: list[onnx.NodeProto] = []
        inputs: set[str] = set()
        waiting, seen = [result], {result}
        while waiting:
            value = waiting.pop()
            if value in self.sources:
                inputs.add(value)
                continue
            node = self._makers.get(value)
            if node is None or node.op_type not in _FUNCTIONS:
                kind = "a value in float" if node is None else f"{node.op_type} in float"
                return Step(result, name, problem=kind)
            nodes.insert(0, node)
            fresh = [x for x in node.input if x and x not in seen and not self._is_scalar(x)]
            seen.update(fresh)
            waiting += fresh
        if len({self.sources[value] for value in inputs}) != 1:
            return Step(result, name, problem="several values in float")
        source = self.sources[next(iter(inputs))]
        run = self._runner(sorted(inputs), result, _in_order(nodes, inputs))
        return _table(
            result, name, lambda scales: run(scales[source].levels()), error=_FUNCTION_ERROR
        )

    def _is_scalar(self, value: str) -> bool:
        tensor = self._constants.get(value)
        return tensor is not None and math.prod(tensor.dims) == 1

    def _runner(
        self, inputs: Sequence[str], result: str, nodes: Sequence[onnx.NodeProto]
    ) -> Callable[[Floats], Floats]:
        used = {value for node in nodes for value in node.input}
        graph = onnx.helper.make_graph(
            nodes,
            "function",
            [_vector(name) for name in inputs],
            [_vector(result)],
            [tensor for name, tensor in self._constants.items() if name in used],
        )
        model = onnx.helper.make_model(
            graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version
        )
        session = open_session(model.SerializeToString(), providers="cpu")

        def run(levels: Floats) -> Floats:
            feeds = dict.fromkeys(inputs, levels.astype(np.float32))
            values: Floats = session.run([result], feeds)[0].astype(np.float64)
            return values

        return run


def _in_order(nodes: Sequence[onnx.NodeProto], given: set[str]) -> list[onnx.NodeProto]:
    """Each after those that it needs."""
    ordered: list[onnx.NodeProto] = []
    known, made = {*given}, {name for node in nodes for name in node.output}
    while len(ordered) < len(nodes):
        for node in nodes:
            if node not in ordered and all(x in known or x not in made for x in node.input):
                ordered.append(node)
                known.update(node.output)
    return ordered


def _vector(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None])


def _table(
    result: str,
    name: str,
    values: Callable[[Scales], Floats],
    ratio: Callable[[Scales], float] | None = None,
    error: float = _ARITHMETIC_ERROR,
) -> Step:
    def results(scales: Scales) -> tuple[Floats, Floats]:
        found = values(scales)
        return found, error * np.abs(found)

    return Step(result, name, results, ratio)


def _average(result: str, name: str, source: str, places: int) -> Step:
    def ratio(scales: Scales) -> float:
        return scales[source].size / places

    def values(scales: Scales) -> Floats:
        sums = np.arange(255 * places + 1) - scales[source].zero_point * places
        return sums * np.float64(ratio(scales))

    return _table(result, name, values, ratio)


def _product(result: str, name: str, first: str, second: str) -> Step:
    def ratio(scales: Scales) -> float:
        return scales[first].size * scales[second].size

    def values(scales: Scales) -> Floats:
        return np.multiply.outer(scales[first].levels(), scales[second].levels()).reshape(-1)

    return _table(result, name, values, ratio)


def _sum(result: str, name: str, first: str, second: str) -> Step:
    def results(scales: Scales) -> tuple[Floats, Floats]:
        terms = [scales[term] for term in (first, second)]
        found = np.add.outer(*(term.levels() for term in terms)).reshape(-1)
        steps = np.add.outer(*(np.abs(np.arange(256) - term.zero_point) for term in terms))
        largest = max(term.size for term in terms)
        return found, _ARITHMETIC_ERROR * (steps.reshape(-1) * largest + np.abs(found))

    return Step(result, name, results)
