"""Edits to an ONNX file's bytes: a session starts at ``resized``, and leaves out an output.

The predictor resizes with Pillow, but onnxruntime would still read and optimize the 300 nodes of
the graph's resize at every start: 22 of 40 ms for efficientnet_lite0. So the nodes in front of
``resized`` are removed in memory, without the onnx package: the tag of each, one byte, is changed
to that of a field number which ONNX has reserved for ever, and every reader skips it.

Only the outer fields of the file are read, as protobuf lays them out. A value's name is unique in
an ONNX graph, so the remaining graph, with ``resized`` as its input, gives the same outputs as the
whole one, unless something that remains gives a value to one of the removed names. Such a file is
loaded whole.

An output that is not wanted is removed likewise, with the nodes that only it needs: onnxruntime
would compute it in every run.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from edgetl.runtime.bundle.memory_copy import Content
from edgetl.runtime.bundle.tensor_names import IMAGES, RESIZED

# Tags: a field's number in onnx.proto, and its wire type: 2 has a length, 0 is a number.
_GRAPH = 7 << 3 | 2  # of the model
_NODE, _INPUT, _OUTPUT, _VALUE_INFO = (n << 3 | 2 for n in (1, 11, 12, 13))  # of the graph
_INITIALIZER, _SPARSE_INITIALIZER = 5 << 3 | 2, 15 << 3 | 2  # of the graph
_REMOVED = 9 << 3 | 2  # of the graph: "reserved 3, 4, 6 to 9"
_NODE_INPUT, _NODE_OUTPUT = 1 << 3 | 2, 2 << 3 | 2
_TENSOR_NAME = 8 << 3 | 2
_VALUE_NAME = 1 << 3 | 2
_SPARSE_VALUES = 1 << 3 | 2
_ELEMENT_TYPE = (2 << 3 | 2, 1 << 3 | 2, 1 << 3)  # value info: type, tensor_type, elem_type
_UINT8 = b"\x02"
_FIXED_LENGTHS = {1: 8, 5: 4}  # wire type → bytes
_MAX_HEAD = 20  # bytes of a tag and a length, ten at most each
_MAX_FIELDS = 200_000  # read from a file, 1 µs each; a network has some thousands
_MAX_TAG = (1 << 29) - 1 << 3 | 7


class _Field(NamedTuple):
    """A field's place in the file: its first byte, its content's first byte, and its end."""

    tag: int
    start: int
    content: int
    end: int


def edits_to_start_at_resized(model: Content) -> dict[int, int] | None:
    """Edits (position → byte) that turn ``model`` into one from ``resized`` to the same outputs.

    None if it is not laid out as an export; onnxruntime then has to load it whole.
    """
    return _edits(model, _new_tags)


def edits_without_output(model: Content, name: str) -> dict[int, int] | None:
    """Edits that leave an output out of ``model``, and the nodes that nothing else needs.

    None if there is no such output.
    """
    return _edits(model, partial(_tags_without_output, name=name.encode()))


def _edits(
    model: Content, new_tags: Callable[[_ProtobufReader, _Field], dict[_Field, int] | None]
) -> dict[int, int] | None:
    try:
        reader = _ProtobufReader(model)
        graphs = [field for field in reader.fields(0, len(model)) if field.tag == _GRAPH]
        tags = new_tags(reader, graphs[0]) if len(graphs) == 1 else None
    except (ValueError, IndexError):  # not a protobuf message
        return None
    if tags is None or any(model[field.start] != field.tag for field in tags):
        return None  # a tag of several bytes, which no writer makes of these numbers
    return {field.start: tag for field, tag in tags.items()}


def apply_edits(model: mmap.mmap | bytearray, edits: Mapping[int, int]) -> None:
    """Carry out ``edits`` (position → byte) in place."""
    for position, value in edits.items():
        model[position] = value


def _new_tags(reader: _ProtobufReader, graph: _Field) -> dict[_Field, int] | None:
    """The fields of ``graph`` that change, with their new tags; None if it can't be cut."""
    images, resized = IMAGES.encode(), RESIZED.encode()
    fields = list(reader.fields(graph.content, graph.end))
    nodes = [field for field in fields if field.tag == _NODE]
    inputs = [field for field in fields if field.tag == _INPUT]
    infos = [field for field in fields if field.tag == _VALUE_INFO]
    described = [info for info in infos if reader.value_name(info) == resized]
    removed_names, removed_nodes = {images}, 0
    while removed_nodes < len(nodes) and resized not in removed_names:
        removed_names |= reader.node_outputs(nodes[removed_nodes])
        removed_nodes += 1
    if resized not in removed_names or len(described) != 1 or len(inputs) != 1:
        return None
    if reader.value_name(inputs[0]) != images or reader.element_type(inputs[0]) != _UINT8:
        return None
    for node in nodes[removed_nodes:]:
        if removed_names & reader.node_outputs(node):
            return None
    for field in fields:
        if field.tag in (_INITIALIZER, _SPARSE_INITIALIZER) and (
            removed_names & reader.initializer_names(field)
        ):
            return None
    removed = dict.fromkeys((*inputs, *nodes[:removed_nodes]), _REMOVED)
    return {described[0]: _INPUT, **removed}


def _tags_without_output(
    reader: _ProtobufReader, graph: _Field, name: bytes
) -> dict[_Field, int] | None:
    fields = list(reader.fields(graph.content, graph.end))
    names = {field: reader.value_name(field) for field in fields if field.tag == _OUTPUT}
    removed = [field for field, output in names.items() if output == name]
    if not removed:
        return None
    needed = {output for output in names.values() if output != name}
    for node in reversed([field for field in fields if field.tag == _NODE]):
        if needed & reader.node_outputs(node):
            needed |= reader.node_inputs(node)
        else:
            removed.append(node)
    return dict.fromkeys(removed, _REMOVED)


class _ProtobufReader:
    """Reads up to _MAX_FIELDS fields of a file.

    Raises ValueError or IndexError for what is not a protobuf message.
    """

    def __init__(self, model: Content) -> None:
        self._model = model
        self._fields_left = _MAX_FIELDS

    def node_outputs(self, node: _Field) -> set[bytes]:
        return set(self._contents(node, _NODE_OUTPUT))

    def node_inputs(self, node: _Field) -> set[bytes]:
        return set(self._contents(node, _NODE_INPUT))

    def value_name(self, value: _Field) -> bytes | None:
        """The last one, which counts if there are several."""
        return next(reversed(self._contents(value, _VALUE_NAME)), None)

    def element_type(self, value: _Field) -> bytes | None:
        found = value
        for tag in _ELEMENT_TYPE:
            inner = [field for field in self.fields(found.content, found.end) if field.tag == tag]
            if not inner:
                return None
            found = inner[-1]
        return bytes(self._model[found.content : found.end])

    def initializer_names(self, initializer: _Field) -> set[bytes]:
        """All names in an initializer, should it have several; a sparse one's is in its values."""
        tensors = [initializer]
        if initializer.tag == _SPARSE_INITIALIZER:
            inner = self.fields(initializer.content, initializer.end)
            tensors = [field for field in inner if field.tag == _SPARSE_VALUES]
        return {name for tensor in tensors for name in self._contents(tensor, _TENSOR_NAME)}

    def fields(self, start: int, end: int) -> Iterator[_Field]:
        """The fields of the message from ``start`` to ``end``."""
        while start != end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise ValueError("more fields than a model has")
            head = self._model[start : start + _MAX_HEAD]
            tag, length = _varint(head, 0)
            if tag > _MAX_TAG:
                raise ValueError("a field's number is too high")  # some readers take its lower bits
            wire_type = tag & 7
            if wire_type == 2:
                value, length = _varint(head, length)
                stop = start + length + value
            elif wire_type == 0:
                stop = start + _varint(head, length)[1]
            else:
                stop = start + length + _FIXED_LENGTHS.get(wire_type, end)
            if stop > end:
                raise ValueError("a field ends after the message that holds it")
            yield _Field(tag, start, start + length, stop)
            start = stop

    def _contents(self, message: _Field, tag: int) -> list[bytes]:
        """The contents of the fields with ``tag`` in ``message``."""
        return [
            bytes(self._model[field.content : field.end])
            for field in self.fields(message.content, message.end)
            if field.tag == tag
        ]


def _varint(data: bytes | bytearray, position: int) -> tuple[int, int]:
    """(number at ``position``, the position after it): seven bits per byte, the lowest first."""
    value = shift = 0
    while data[position] >= 0x80:
        value |= (data[position] & 0x7F) << shift
        shift += 7
        position += 1
    return value | data[position] << shift, position + 1
