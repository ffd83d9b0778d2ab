"""What of an ONNX graph is needed for some of its values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def needed(nodes: Sequence[Any], outputs: Iterable[str]) -> tuple[list[Any], set[str]]:
    """(nodes on the way to ``outputs``, in their order; names of all values that they and ``outputs`` use).

    nodes  a graph's: whoever uses a value comes after who makes it
    """
    used, kept = set(outputs), []
    for node in reversed(nodes):
        if used.intersection(node.output):
            kept.append(node)
            used.update(_inputs(node))
    return kept[::-1], used


def _inputs(node: Any) -> Iterator[str]:
    """Names that ``node`` uses, those captured by its subgraphs included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (
                value.name for value in graph.output
            )  # a branch may hand out an outer value as it is
            for inner in graph.node:
                yield from _inputs(inner)
