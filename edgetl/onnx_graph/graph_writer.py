"""Writing an ONNX graph: one call per node, shared constants, unique names."""

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

    Python ints become int64 scalars and floats double scalars; numpy arrays keep their type.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}
        self._names = 0

    def op(self, kind: str, *inputs: Value, output: str | None = None, **attributes: Any) -> str:
        """Append a node of type ``kind`` → the name of its output (``output``, or a new one)."""
        name = output or self._new_name(kind)
        sources = [
            value if isinstance(value, str) else self._constant(np.asarray(value))
            for value in inputs
        ]
        node_name = self._new_name(kind)
        self.nodes.append(helper.make_node(kind, sources, [name], name=node_name, **attributes))
        return name

    def cast(self, value: Value, dtype: type) -> str:
        """Convert ``value`` to numpy's ``dtype``."""
        return self.op("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def if_else(
        self,
        condition: str,
        dtype: type,
        then: Callable[[], str],
        otherwise: Callable[[], str],
        output: str,
    ) -> str:
        """``output`` = then() if ``condition`` (a bool scalar) else otherwise(), of ``dtype``.

        Each function writes the nodes of its branch and returns the name of their result.
        """
        then_branch, else_branch = (self._branch(write, dtype) for write in (then, otherwise))
        return self.op(
            "If", condition, output=output, then_branch=then_branch, else_branch=else_branch
        )

    def _branch(self, write: Callable[[], str], dtype: type) -> onnx.GraphProto:
        outer, self.nodes = self.nodes, []
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        result = helper.make_tensor_value_info(write(), element, None)
        nodes, self.nodes = self.nodes, outer
        return helper.make_graph(nodes, self._new_name("branch"), [], [result])

    def _constant(self, array: np.ndarray) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.initializers:
            self.initializers[key] = numpy_helper.from_array(array, self._new_name("constant"))
        return str(self.initializers[key].name)

    def _new_name(self, kind: str) -> str:
        self._names += 1
        return f"{self.prefix}/{kind}_{self._names}"
