"""Untrained models to measure on a device, in one small file.

How long a network takes does not depend on the values of its weights. So these models are written
as an export writes them, and their weights are left out: what is kept of each matrix or filter is
its place in the model, and the distribution that other values are drawn from on the device.
Vectors stay: they are small, and int8's scales depend on each other.

The file is a ZIP archive of ``candidates.json``, which describes the models, and of the rest of
each model.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgetl.errors import BundleError
from edgetl.runtime.bundle.bundle_folder import SCHEMA, check_schema, os_errors_as_bundle_error
from edgetl.runtime.bundle.embedded_checksum import embed_checksum
from edgetl.system.atomic_write import atomic_write

CLASSES = 10
"""Of every candidate: a few more or less take no time."""
_INDEX = "candidates.json"
_ITEM_BYTES = {"<f4": 4, "|i1": 1}
_MAX_BYTES = 1 << 31  # of a model: protobuf's limit
# What is kept in the file is small; a ZIP archive of a few kilobytes can hold gigabytes of zeros.
_MAX_INDEX, _MAX_RESTS = 1 << 24, 1 << 29  # bytes
_DRAWN = 1 << 20  # weights drawn at a time
_LARGEST = 1e30  # weight: more would overflow
_HINT = "Write it again with `edgetl candidates`, or copy it again."


class DrawnWeights(NamedTuple):
    """The weights of one layer, of which only the distribution is kept.

    position   of their first byte in the model file
    dtype      of ``_ITEM_BYTES``, as numpy writes it
    size       how many
    mean, std  of the normal distribution that they are drawn from
    low, high  the smallest and the largest one
    """

    position: int
    dtype: str
    size: int
    mean: float
    std: float
    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> bytes:
        """Other weights, as the model file holds them."""
        parts = []
        for start in range(0, self.size, _DRAWN):
            values = rng.standard_normal(min(_DRAWN, self.size - start), np.float32)
            values = (self.mean + self.std * values).clip(self.low, self.high)
            values = values.round() if self.dtype == "|i1" else values
            parts.append(values.astype(self.dtype).tobytes())
        return b"".join(parts)


@dataclass(frozen=True)
class CandidateModel:
    """An untrained model.

    backbone    the network's name
    image_size  side of its input, pixels
    precision   "fp32" or "int8"
    class_bytes  how much larger its file is with one class more than ``CLASSES``
    rest        its model file without ``weights``
    weights     in the order of their positions
    """

    backbone: str
    image_size: int
    precision: str
    class_bytes: int
    rest: bytes
    weights: Sequence[DrawnWeights]

    def model(self) -> bytes:
        """The whole ``model.onnx``, with the same random weights each time."""
        rng = np.random.default_rng(0)
        parts, used, length = [], 0, 0
        for weights in self.weights:
            gap = self.rest[used : used + weights.position - length]
            parts += [gap, weights.draw(rng)]
            used += len(gap)
            length += len(gap) + len(parts[-1])
        return embed_checksum(b"".join([*parts, self.rest[used:]]))


def write_candidates_file(path: Path, candidates: Sequence[CandidateModel]) -> None:
    """Write the file whole or not at all. Raises OSError."""
    entries = [
        {
            "backbone": candidate.backbone,
            "image_size": candidate.image_size,
            "precision": candidate.precision,
            "class_bytes": candidate.class_bytes,
            "file": f"{number:03}.onnx",
            "weights": candidate.weights,
        }
        for number, candidate in enumerate(candidates)
    ]

    def write(part: Path) -> None:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_INDEX, json.dumps({"schema": SCHEMA, "candidates": entries}))
            for entry, candidate in zip(entries, candidates, strict=True):
                archive.writestr(str(entry["file"]), candidate.rest)

    atomic_write(path, write)


def read_candidates_file(path: Path) -> list[CandidateModel]:
    """The models in the file. Raises BundleError if it is not one, or is damaged."""
    try:
        with os_errors_as_bundle_error(path), zipfile.ZipFile(path) as archive:
            if archive.getinfo(_INDEX).file_size > _MAX_INDEX:
                raise ValueError(f"{_INDEX} is too large")
            index = json.loads(archive.read(_INDEX))
            check_schema(path, index)
            entries = index["candidates"]
            if sum(archive.getinfo(entry["file"]).file_size for entry in entries) > _MAX_RESTS:
                raise ValueError("its models are too large")
            return [_candidate(archive, entry) for entry in entries]
    except BundleError:
        raise
    except Exception as error:  # of many types: zipfile's, zlib's, and of values of other types
        is_archive = isinstance(error, (zipfile.BadZipFile, zlib.error, EOFError))
        reason = "it is damaged" if is_archive else "it is not a file of candidates"
        raise BundleError(path, f"{reason} ({type(error).__name__}: {error})", _HINT) from error


def _candidate(archive: zipfile.ZipFile, entry: Mapping[str, Any]) -> CandidateModel:
    weights = [DrawnWeights(*values) for values in entry["weights"]]
    rest = archive.read(entry["file"])
    _check_weights(weights, len(rest))
    return CandidateModel(
        str(entry["backbone"]),
        int(entry["image_size"]),
        str(entry["precision"]),
        int(entry["class_bytes"]),
        rest,
        weights,
    )


def _check_weights(weights: Sequence[DrawnWeights], rest: int) -> None:
    """Raise an error if a model file with these, and so many other bytes, can't be made."""
    drawn, end = 0, 0  # bytes
    for layer in weights:
        numbers = layer.mean, layer.std, layer.low, layer.high
        is_whole = isinstance(layer.position, int) and isinstance(layer.size, int)
        small = all(abs(number) < _LARGEST for number in numbers)
        in_order = end <= layer.position <= drawn + rest
        if not (is_whole and in_order and layer.size >= 0 and small):
            raise ValueError(f"it has weights that can't be drawn: {layer}")
        drawn += _ITEM_BYTES[layer.dtype] * layer.size
        end = layer.position + _ITEM_BYTES[layer.dtype] * layer.size
    if drawn + rest > _MAX_BYTES:
        raise ValueError(f"a model would have {drawn + rest} bytes")
