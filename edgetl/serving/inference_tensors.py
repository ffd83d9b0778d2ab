"""Tensors of the Open Inference Protocol v2: in JSON, or as bytes behind it.

A request is JSON that names its inputs. An input's values are in the JSON, or, with the header
``Inference-Header-Content-Length`` that gives the length of the JSON, behind it: numbers as they
are in memory, and each element of BYTES after its length in four bytes. Outputs likewise.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.tensor_names import IMAGES, LOGITS, OOD_SCORE, PROBABILITIES
from edgetl.runtime.images.decode import Source
from edgetl.runtime.inference.prediction import Prediction

HEADER_LENGTH = "Inference-Header-Content-Length"
IMAGE, LABEL, UNKNOWN = "image", "label", "unknown"
_INPUTS: dict[str, tuple[str, list[int]]] = {
    IMAGE: ("BYTES", [-1]),
    IMAGES: ("UINT8", [-1, -1, -1, 3]),
}
_TYPES = {"FP32": "<f4", "BOOL": "?"}  # of outputs, as bytes
# Parameters of an input or output that say where its values are.
_BINARY_SIZE, _BINARY, _BINARY_ALL = "binary_data_size", "binary_data", "binary_data_output"
_CLASSES, _SHARED = "classification", "shared_memory_region"
_MOST_PARTS = 1 << 20  # lists, objects and ends of strings; parsing more would hold up the others


class InferenceError(ValueError):
    """A request that does not follow the protocol, or that asks for what there is not."""


class WantedOutput(NamedTuple):
    """An output that a request asks for.

    binary   as bytes behind the JSON
    classes  so many of the best classes, as "value:index:label"; 0: the values of all
    """

    name: str
    binary: bool
    classes: int


class InferenceRequest(NamedTuple):
    """What a request asks for. ``photos`` are encoded, or uint8 [H, W, 3]; ``id`` may be None."""

    id: str | None
    photos: Sequence[Source]
    outputs: Sequence[WantedOutput]


def tensors(card: ModelCard) -> dict[str, list[dict[str, Any]]]:
    """The inputs and outputs of a model, as its metadata gives them; -1: any number."""
    outputs = {
        PROBABILITIES: ("FP32", [-1, len(card.labels)]),
        LOGITS: ("FP32", [-1, len(card.labels)]),
        LABEL: ("BYTES", [-1]),
    }
    if card.unknown is not None:
        outputs |= {OOD_SCORE: ("FP32", [-1]), UNKNOWN: ("BOOL", [-1])}
    return {
        kind: [
            {"name": name, "datatype": datatype, "shape": shape}
            for name, (datatype, shape) in values.items()
        ]
        for kind, values in (("inputs", _INPUTS), ("outputs", outputs))
    }


def read_request(body: bytes, header_length: str | None, card: ModelCard) -> InferenceRequest:
    """Read the body of an inference request. Raises InferenceError."""
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdecimal()):
            raise InferenceError(f"{HEADER_LENGTH} is {header_length!r}; it must be a number.")
        length = int(header_length[:20])
        if length > len(body):
            raise InferenceError(f"{HEADER_LENGTH} is {length}; the body has {len(body)} bytes.")
    if sum(body.count(mark, 0, length) for mark in (b"[", b"{", b'"')) > _MOST_PARTS:
        raise InferenceError("The JSON has too many parts: send the values as bytes behind it.")
    try:
        request = json.loads(body[:length])
        if not isinstance(request, Mapping):
            raise InferenceError("The request is not a JSON object.")
        return _read(request, memoryview(body)[length:], card)
    except RecursionError as error:
        raise InferenceError("The request is nested too deeply.") from error
    except InferenceError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InferenceError(f"The request does not follow the protocol ({reason}).") from error


def _read(request: Mapping[str, Any], rest: memoryview, card: ModelCard) -> InferenceRequest:
    inputs = request["inputs"]
    if len(inputs) != 1:
        raise InferenceError(f"There are {len(inputs)} inputs; give one, {IMAGE} or {IMAGES}.")
    tensor, identity = inputs[0], request.get("id")
    name, parameters = tensor["name"], _parameters(tensor)
    if name not in _INPUTS:
        raise InferenceError(f"There is no input {name!r}; there are {IMAGE} and {IMAGES}.")
    datatype, _ = _INPUTS[name]
    if tensor["datatype"] != datatype:
        raise InferenceError(f"{name} is {tensor['datatype']}; it must be {datatype}.")
    if _SHARED in parameters:
        raise InferenceError("There is no shared memory here: send the values.")
    shape = _shape(name, tensor["shape"])
    size = parameters.get(_BINARY_SIZE)
    if size is not None and size != len(rest):
        raise InferenceError(f"{name} has {size!r} bytes; {len(rest)} came behind the JSON.")
    if size is None and len(rest):
        raise InferenceError(f"{len(rest)} bytes behind the JSON belong to no input.")
    values: Sequence[Source]
    if name == IMAGE:
        values = _flat_strings(tensor["data"]) if size is None else _bytes_elements(rest)
        if len(values) != math.prod(shape):
            raise InferenceError(f"{IMAGE} has {len(values)} elements; its shape is {shape}.")
    else:
        values = list(_pixels(shape, tensor.get("data"), None if size is None else rest))
    if not values:
        raise InferenceError(f"{name} has no photo.")
    if not isinstance(identity, str | None):
        raise InferenceError("The id must be a string.")
    (identity or "").encode()  # half a character, which JSON can have, could not be sent back
    return InferenceRequest(identity, values, _outputs(request, card))


def _parameters(owner: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = owner.get("parameters", {})
    if not isinstance(parameters, Mapping):
        raise InferenceError("The parameters are not a JSON object.")
    return parameters


def _shape(name: str, shape: Any) -> list[int]:
    is_list = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    sizes = shape if is_list else []
    if name == IMAGE:
        fits, expected = len(sizes) == 1 or (len(sizes) == 2 and sizes[1] == 1), "[N] or [N, 1]"
    else:
        fits, expected = len(sizes) == 4 and sizes[3] == 3, "[N, H, W, 3]"
    if not fits:
        raise InferenceError(f"The shape of {name} is {shape}; it must be {expected}.")
    return list(sizes)


def _flat_strings(data: Any) -> list[bytes]:
    """The photos in JSON, which has no bytes: as base64, in lists of any depth."""
    if isinstance(data, list):
        return [photo for element in data for photo in _flat_strings(element)]
    try:
        return [base64.b64decode(data, validate=True)]
    except (binascii.Error, ValueError, TypeError) as error:
        message = f"In JSON, a photo is a string of base64 ({error}); or send {IMAGE} as bytes."
        raise InferenceError(message) from error


def _bytes_elements(content: memoryview) -> list[bytes]:
    elements, position = [], 0
    while position < len(content):
        if position + 4 > len(content):
            raise InferenceError(f"{IMAGE} ends inside the length of an element.")
        (length,) = struct.unpack_from("<I", content, position)
        position += 4
        if position + length > len(content):
            raise InferenceError(f"{IMAGE} ends inside an element of {length} bytes.")
        elements.append(bytes(content[position : position + length]))
        position += length
    return elements


def _pixels(shape: list[int], data: Any, content: memoryview | None) -> Any:
    """uint8 [N, H, W, 3]"""
    if 0 in shape:  # any number of photos would have no bytes
        raise InferenceError(f"The shape of {IMAGES} is {shape}; no photo has a size of 0.")
    values = np.asarray(data).reshape(-1) if content is None else np.frombuffer(content, np.uint8)
    if values.size != math.prod(shape):
        raise InferenceError(f"{IMAGES} has {values.size} values; its shape is {shape}.")
    if values.dtype.kind not in "iu" or values.min(initial=0) < 0 or values.max(initial=0) > 255:
        raise InferenceError(f"{IMAGES} must be whole numbers from 0 to 255.")
    return values.astype(np.uint8, copy=False).reshape(shape)


def _outputs(request: Mapping[str, Any], card: ModelCard) -> list[WantedOutput]:
    """What the request asks for; if it names no output, all of them."""
    known = [tensor["name"] for tensor in tensors(card)["outputs"]]
    binary = _parameters(request).get(_BINARY_ALL) is True
    wanted: list[WantedOutput] = []
    for output in request.get("outputs") or [{"name": name} for name in known]:
        name, parameters = output["name"], _parameters(output)
        if name not in known:
            raise InferenceError(f"There is no output {name!r}; there are {', '.join(known)}.")
        if any(name == other.name for other in wanted):
            raise InferenceError(f"The output {name} is asked for twice.")
        classes = parameters.get(_CLASSES, 0)
        if type(classes) is not int or classes < 0:
            raise InferenceError(f"{_CLASSES} is {classes!r}; it must be a whole number.")
        if classes and name not in (PROBABILITIES, LOGITS):
            raise InferenceError(f"{_CLASSES} is for {PROBABILITIES} and {LOGITS}.")
        if _SHARED in parameters:
            raise InferenceError("There is no shared memory here: outputs are in the response.")
        wanted.append(WantedOutput(name, parameters.get(_BINARY, binary) is True, classes))
    return wanted


_VALUES: dict[str, Callable[[Prediction], Any]] = {
    PROBABILITIES: lambda prediction: prediction.probabilities,
    LOGITS: lambda prediction: prediction.logits,
    LABEL: lambda prediction: prediction.label,
    OOD_SCORE: lambda prediction: prediction.ood_score,
    UNKNOWN: lambda prediction: prediction.is_unknown,
}


def write_response(
    described: Mapping[str, Any],
    request: InferenceRequest,
    predictions: Sequence[Prediction],
    card: ModelCard,
) -> tuple[bytes, int | None]:
    """The body of a response, and the length of its JSON if bytes follow, else None.

    described  what the JSON says besides its outputs
    """
    datatypes = {tensor["name"]: tensor["datatype"] for tensor in tensors(card)["outputs"]}
    outputs, parts = [], []
    for name, is_binary, classes in request.outputs:
        values: Any = [_VALUES[name](prediction) for prediction in predictions]
        datatype = datatypes[name]
        if classes:
            datatype, values = "BYTES", [_best(row, classes, card.labels) for row in values]
        array = np.array(values, _TYPES.get(datatype, object))
        output = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if is_binary:
            content = _as_bytes(array)
            parts.append(content)
            output["parameters"] = {_BINARY_SIZE: len(content)}
        else:
            output["data"] = array.reshape(-1).tolist()
        outputs.append(output)
    identity = {} if request.id is None else {"id": request.id}
    text = json.dumps({**described, **identity, "outputs": outputs}, ensure_ascii=False).encode()
    return (b"".join((text, *parts)), len(text)) if parts else (text, None)


def _best(row: Any, classes: int, labels: Sequence[str]) -> list[str]:
    best = np.argsort(-row, kind="stable")[:classes]
    return [f"{row[index]:f}:{index}:{labels[index]}" for index in best]


def _as_bytes(array: Any) -> bytes:
    if array.dtype != object:
        return bytes(array.tobytes())
    elements = [text.encode() for text in array.reshape(-1)]
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)
