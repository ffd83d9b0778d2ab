"""Editing ONNX models: inner values as outputs, and nothing that the outputs don't need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy

import onnx


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy of ``model`` with the values ``names`` of its main graph as further outputs."""
    copy = deepcopy(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


def prune(graph: onnx.GraphProto) -> None:
    """Remove the nodes and initializers that no output depends on, in place."""
    used = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):  # a value is computed before it is used
        if used.intersection(node.output):
            nodes.append(node)
            used.update(_inputs(node))
    replace_nodes(graph, nodes[::-1])
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make ``nodes``, which may be some of its present ones, the nodes of ``graph``."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


def int_attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """The value of an attribute of ``node``; ``default`` if it has none of that name."""
    return next((entry.i for entry in node.attribute if entry.name == name), default)


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the values that ``node`` uses, those used inside its subgraphs included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            # A branch may return a value of the outer graph unchanged.
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from _inputs(inner)
