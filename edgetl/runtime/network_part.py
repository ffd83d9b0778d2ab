"""The part of an exported model behind its resize, cut out of the file without the onnx package.

The predictor resizes with Pillow, while onnxruntime would read and optimize the resize's 300 nodes at every start:
22 of 40 ms for efficientnet_lite0. The part is copied (8 ms) into a file in memory, which onnxruntime reads by its path;
bytes would stand beside its own copy for as long as the session lives.

Only the outer fields of the file are read, as protobuf lays them out. A value's name is unique in an ONNX graph, so a
part that onnxruntime takes with ``resized`` as its input answers as the whole does behind that value, unless something
else gives a value to a name that only what is left out gave one to: such a file is loaded whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from typing import IO, NamedTuple

WHOLE_INPUT, PART_INPUT = "images", "resized"

# Tags: a field's number in onnx.proto, and its kind: 2 for what has a length, 0 for a number.
_GRAPH = 7 << 3 | 2  # of the model
_NODE, _INPUT, _VALUE = 1 << 3 | 2, 11 << 3 | 2, 13 << 3 | 2  # of the graph
_INITIALIZER, _SPARSE = 5 << 3 | 2, 15 << 3 | 2  # of the graph
_OUTPUT = 2 << 3 | 2  # of a node
_TENSOR_NAME = 8 << 3 | 2
_NAME = 1 << 3 | 2  # of a value
_ELEMENT = (2 << 3 | 2, 1 << 3 | 2, 1 << 3)  # of a value: its type, tensor_type in there, elem_type in there
_UINT8 = b"\x02"
_LENGTHS = {1: 8, 5: 4}  # of the kinds of a fixed length, bytes
_BLOCK = 1 << 16  # bytes; in larger ones glibc keeps what is freed: 4 MB more at the peak with the whole in one
_LONGEST_HEAD = 20  # bytes: a tag and a length, of ten at most
_MOST_FIELDS = 200_000  # read of a file; each costs a microsecond, and a network has some thousands
_HIGHEST_TAG = (1 << 29) - 1 << 3 | 7


class _Field(NamedTuple):
    """Where a field stands in the file: its first byte, the first of its content, the one after its last."""

    tag: int
    start: int
    content: int
    end: int


_Piece = bytes | tuple[int, int]  # new bytes, or from where to where in the file


@contextmanager
def network_part(model: BufferedReader) -> Iterator[IO[bytes] | None]:
    """A model from ``resized`` to the outputs of ``model``, as an open file in memory.

    None where ``model`` is not laid out as an export: then it is for onnxruntime to say what it is.
    """
    try:
        pieces = _pieces(model)
    except (ValueError, IndexError):
        pieces = None
    if pieces is None:
        model.seek(0)
        yield None
        return
    with _memory_file() as part:
        for piece in pieces:
            _copy(model, piece, part)
        part.seek(0)
        model.seek(0)
        yield part


def _memory_file() -> IO[bytes]:
    try:
        return os.fdopen(os.memfd_create("model"), "w+b", buffering=0)
    except (AttributeError, OSError):  # not Linux, or not allowed there
        return BytesIO()


def _copy(model: BufferedReader, piece: _Piece, part: IO[bytes]) -> None:
    if isinstance(piece, bytes):
        part.write(piece)
        return
    position, end = piece
    try:
        while position < end:  # inside the kernel, 2 of 10 ms sooner
            position += os.sendfile(part.fileno(), model.fileno(), position, end - position) or end
    except (AttributeError, OSError):  # not from this file system, or not to bytes
        model.seek(position)
    while position < end:
        block = model.read(min(_BLOCK, end - position))
        part.write(block)
        position += len(block) or end  # a file cut short meanwhile is for onnxruntime to refuse


def _pieces(model: BufferedReader) -> list[_Piece] | None:
    """Raises ValueError or IndexError for what is no protobuf message."""
    length = os.fstat(model.fileno()).st_size
    reader = _Reader(model)
    graphs = [field for field in reader.fields(0, length) if field.tag == _GRAPH]
    inner = _graph_pieces(reader, graphs[0]) if len(graphs) == 1 else None
    if inner is None:
        return None
    size = sum(len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in inner)
    return [(0, graphs[0].start), _varint_bytes(_GRAPH) + _varint_bytes(size), *inner, (graphs[0].end, length)]


def _graph_pieces(reader: _Reader, graph: _Field) -> list[_Piece] | None:
    fields = list(reader.fields(graph.content, graph.end))
    nodes = [field for field in fields if field.tag == _NODE]
    inputs = [field for field in fields if field.tag == _INPUT]
    described = [field for field in fields if field.tag == _VALUE and reader.name(field) == PART_INPUT.encode()]
    lost, left_out = {WHOLE_INPUT.encode()}, 0
    while left_out < len(nodes) and PART_INPUT.encode() not in lost:
        lost |= reader.outputs(nodes[left_out])
        left_out += 1
    if PART_INPUT.encode() not in lost:
        return None
    if len(described) != 1 or len(inputs) != 1 or not reader.is_picture(inputs[0]):
        return None
    if any(lost & reader.constants(field) for field in fields if field.tag in (_INITIALIZER, _SPARSE)):
        return None
    pieces: list[_Piece] = []
    position = graph.content
    for dropped in sorted([*nodes[:left_out], *inputs, *described], key=lambda field: field.start):
        if dropped.start > position:
            pieces.append((position, dropped.start))
        position = dropped.end
    new_input = described[0].content, described[0].end
    return [*pieces, (position, graph.end), _varint_bytes(_INPUT), _varint_bytes(new_input[1] - new_input[0]), new_input]


class _Reader:
    """Fields of a file, so many at most. Raises ValueError or IndexError for what is no protobuf message."""

    def __init__(self, model: BufferedReader) -> None:
        self._model = model
        self._left = _MOST_FIELDS

    def outputs(self, node: _Field) -> set[bytes]:
        return {self._content(field) for field in self.fields(node.content, node.end) if field.tag == _OUTPUT}

    def is_picture(self, value: _Field) -> bool:
        element = self._inner(value, *_ELEMENT)
        return element is not None and self._content(element) == _UINT8 and self.name(value) == WHOLE_INPUT.encode()

    def name(self, value: _Field) -> bytes | None:
        found = self._inner(value, _NAME)
        return self._content(found) if found else None

    def constants(self, initializer: _Field) -> set[bytes]:
        """All names that an initializer gives itself, were there several; a sparse one is named by its values."""
        tensors = [initializer]
        if initializer.tag == _SPARSE:
            tensors = [field for field in self.fields(initializer.content, initializer.end) if field.tag == _NAME]
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
            self._model.seek(start)
            head = self._model.read(_LONGEST_HEAD)
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
            found = next(reversed([inner for inner in self.fields(found.content, found.end) if inner.tag == tag]), None)
        return found

    def _content(self, field: _Field) -> bytes:
        self._model.seek(field.content)
        return self._model.read(field.end - field.content)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """(the number at ``position``, the position behind it): seven bits a byte, the lowest first."""
    value = shift = 0
    while data[position] >= 0x80:
        value |= (data[position] & 0x7F) << shift
        shift += 7
        position += 1
    return value | data[position] << shift, position + 1


def _varint_bytes(value: int) -> bytes:
    content = bytearray()
    while value >= 0x80:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*content, value])
