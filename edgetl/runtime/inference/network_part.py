"""The part of an exported model behind its resize, left over when the rest is crossed out, without the onnx package.

The predictor resizes with Pillow, while onnxruntime would read and optimize the resize's 300 nodes at every start:
22 of 40 ms for efficientnet_lite0. Crossing out is done in place, a byte a field: a field's tag becomes that of a
number which ONNX has reserved for ever, so that every reader passes it over.

Only the outer fields of the file are read, as protobuf lays them out. A value's name is unique in an ONNX graph, so a
part that onnxruntime takes with ``resized`` as its input answers as the whole does behind that value, unless something
else gives a value to a name that only what is crossed out gave one to: such a file is loaded whole.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from edgetl.runtime.bundle.memory_copy import Content
from edgetl.runtime.bundle.tensor_names import IMAGES, RESIZED

# Tags: a field's number in onnx.proto, and its kind: 2 for what has a length, 0 for a number.
_GRAPH = 7 << 3 | 2  # of the model
_NODE, _INPUT, _VALUE = 1 << 3 | 2, 11 << 3 | 2, 13 << 3 | 2  # of the graph
_CROSSED_OUT = 9 << 3 | 2  # of the graph: "reserved 3, 4, 6 to 9"
_INITIALIZER, _SPARSE = 5 << 3 | 2, 15 << 3 | 2  # of the graph
_OUTPUT = 2 << 3 | 2  # of a node
_TENSOR_NAME = 8 << 3 | 2
_NAME = 1 << 3 | 2  # of a value
_ELEMENT = (
    2 << 3 | 2,
    1 << 3 | 2,
    1 << 3,
)  # of a value: its type, tensor_type in there, elem_type in there
_UINT8 = b"\x02"
_LENGTHS = {1: 8, 5: 4}  # of the kinds of a fixed length, bytes
_LONGEST_HEAD = 20  # bytes: a tag and a length, of ten at most
_MOST_FIELDS = 200_000  # read of a file; each costs a microsecond, and a network has some thousands
_HIGHEST_TAG = (1 << 29) - 1 << 3 | 7


class _Field(NamedTuple):
    """Where a field stands in the file: its first byte, the first of its content, the one after its last."""

    tag: int
    start: int
    content: int
    end: int


def network_edits(model: Content) -> dict[int, int] | None:
    """Which bytes of ``model`` to set (position → value) for a model from ``resized`` to the same outputs.

    None where it is not laid out as an export: then it is for onnxruntime to say what it is.
    """
    try:
        reader = _Reader(model)
        graphs = [field for field in reader.fields(0, len(model)) if field.tag == _GRAPH]
        changed = _changed_tags(reader, graphs[0]) if len(graphs) == 1 else None
    except (ValueError, IndexError):  # no protobuf message
        return None
    if changed is None or any(model[field.start] != field.tag for field, _ in changed):
        return None  # a tag of several bytes, as no writer makes them
    return {field.start: tag for field, tag in changed}


def set_bytes(model: mmap.mmap | bytearray, edits: Mapping[int, int]) -> None:
    """Carry out ``edits`` (position → value) in place."""
    for position, value in edits.items():
        model[position] = value


def _changed_tags(reader: _Reader, graph: _Field) -> list[tuple[_Field, int]] | None:
    """Fields of ``graph`` and the tags that they get."""
    fields = list(reader.fields(graph.content, graph.end))
    nodes = [field for field in fields if field.tag == _NODE]
    inputs = [field for field in fields if field.tag == _INPUT]
    described = [
        field for field in fields if field.tag == _VALUE and reader.name(field) == RESIZED.encode()
    ]
    lost, left_out = {IMAGES.encode()}, 0
    while left_out < len(nodes) and RESIZED.encode() not in lost:
        lost |= reader.outputs(nodes[left_out])
        left_out += 1
    if RESIZED.encode() not in lost:
        return None
    if len(described) != 1 or len(inputs) != 1 or not reader.is_picture(inputs[0]):
        return None
    if any(lost & reader.outputs(node) for node in nodes[left_out:]):
        return None
    if any(
        lost & reader.constants(field) for field in fields if field.tag in (_INITIALIZER, _SPARSE)
    ):
        return None
    return [
        (described[0], _INPUT),
        *((field, _CROSSED_OUT) for field in (*inputs, *nodes[:left_out])),
    ]


class _Reader:
    """Fields of a file, so many at most. Raises ValueError or IndexError for what is no protobuf message."""

    def __init__(self, model: Content) -> None:
        self._model = model
        self._left = _MOST_FIELDS

    def outputs(self, node: _Field) -> set[bytes]:
        return {
            self._content(field)
            for field in self.fields(node.content, node.end)
            if field.tag == _OUTPUT
        }

    def is_picture(self, value: _Field) -> bool:
        element = self._inner(value, *_ELEMENT)
        return (
            element is not None
            and self._content(element) == _UINT8
            and self.name(value) == IMAGES.encode()
        )

    def name(self, value: _Field) -> bytes | None:
        found = self._inner(value, _NAME)
        return self._content(found) if found else None

    def constants(self, initializer: _Field) -> set[bytes]:
        """All names that an initializer gives itself, were there several; a sparse one is named by its values."""
        tensors = [initializer]
        if initializer.tag == _SPARSE:
            tensors = [
                field
                for field in self.fields(initializer.content, initializer.end)
                if field.tag == _NAME
            ]
        return {
            self._content(field)
            for tensor in tensors
            for field in self.fields(tensor.content, tensor.end)
            if field.tag == _TENSOR_NAME
        }

    def fields(self, start: int, end: int) -> Iterator[_Field]:
        """The fields of the message from ``start`` to ``end``."""
        while start != end:
            self._left -= 1
            if self._left < 0:
                raise ValueError("more fields than a model has")
            head = self._model[start : start + _LONGEST_HEAD]
            tag, length = _varint(head, 0)
            if tag > _HIGHEST_TAG:
                raise ValueError("a field's number is too high")  # others take its lower bits
            kind = tag & 7
            if kind == 2:
                value, length = _varint(head, length)
                stop = start + length + value
            elif kind == 0:
                stop = start + _varint(head, length)[1]
            else:
                stop = start + length + _LENGTHS.get(kind, end)
            if stop > end:
                raise ValueError("a field ends after the message that holds it")
            yield _Field(tag, start, start + length, stop)
            start = stop

    def _inner(self, field: _Field, *tags: int) -> _Field | None:
        """The last field of each tag inside the one before: the one that counts where there are several."""
        found: _Field | None = field
        for tag in tags:
            if found is None:
                break
            found = next(
                reversed(
                    [inner for inner in self.fields(found.content, found.end) if inner.tag == tag]
                ),
                None,
            )
        return found

    def _content(self, field: _Field) -> bytes:
        return bytes(self._model[field.content : field.end])


def _varint(data: bytes | bytearray, position: int) -> tuple[int, int]:
    """(the number at ``position``, the position behind it): seven bits a byte, the lowest first."""
    value = shift = 0
    while data[position] >= 0x80:
        value |= (data[position] & 0x7F) << shift
        shift += 7
        position += 1
    return value | data[position] << shift, position + 1
