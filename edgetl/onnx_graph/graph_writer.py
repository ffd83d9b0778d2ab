"""A small writer of ONNX graphs: one call a node, constants shared, names unique."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# A node's input: the name of a value, or a constant that becomes a shared initializer.
Value = str | int | float | np.ndarray | np.generic


class GraphWriter:
    """Collects nodes and initializers whose names all start with ``prefix``.

    Python ints become int64 and floats become double, both scalars; numpy arrays keep their type.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}
        self._names = 0

    def op(self, kind: str, *inputs: Value, output: str | None = None, **attributes: Any) -> str:
        """Append a node of type ``kind`` → the name of its output (``output``, or a new one)."""
        name = output or self._name(kind)
        sources = [self._source(value) for value in inputs]
        self.nodes.append(
            helper.make_node(kind, sources, [name], name=self._name(kind), **attributes)
        )
        return name

    def cast(self, value: Value, dtype: type) -> str:
        """Convert ``value`` to numpy's ``dtype``."""
        return self.op("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def choose(
        self,
        condition: str,
        dtype: type,
        then: Callable[[], str],
        otherwise: Callable[[], str],
        output: str,
    ) -> str:
        """``output`` = then() if ``condition`` (a bool scalar) else otherwise(); each writes its nodes into a branch."""
        branches = {
            "then_branch": self._branch(then, dtype),
            "else_branch": self._branch(otherwise, dtype),
        }
        return self.op("If", condition, output=output, **branches)

    def _branch(self, write: Callable[[], str], dtype: type) -> onnx.GraphProto:
        outer, self.nodes = self.nodes, []
        result = helper.make_tensor_value_info(
            write(), helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None
        )
        nodes, self.nodes = self.nodes, outer
        return helper.make_graph(nodes, self._name("branch"), [], [result])

    def _source(self, value: Value) -> str:
        if isinstance(value, str):
            return value
        array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.initializers:
            self.initializers[key] = numpy_helper.from_array(array, self._name("constant"))
        return str(self.initializers[key].name)

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{self.prefix}/{kind}_{self._names}"
