"""The checksum inside an exported ONNX file: what the manifest is to a bundle, for a model.onnx that was copied out of it.

It is one more entry of the model's metadata, `edgetl.sha256`, as the last bytes of the file: a reader needs no parser to
find it, protobuf takes a message's fields in any order, and every ONNX tool reads the file as before. Its value is the
SHA-256 of all that stands in front of it. So `head -c -64 model.onnx | sha256sum` prints what `tail -c 64 model.onnx` does.

A file with such an entry that doesn't fit is refused, damaged or not: programs that save a model again take its metadata
along, and nothing in the file tells one of their changes from a flipped bit. Whoever means a change removes the entry.
"""

from __future__ import annotations

import hashlib
from operator import ne
from pathlib import Path

from edgetl.errors import BundleError
from edgetl.runtime.bundle.bundle_folder import METADATA_KEY
from edgetl.runtime.bundle.memory_copy import Content

SEAL_KEY = f"{METADATA_KEY}.sha256"

_DIGITS = 64  # hexadecimal, of a SHA-256
# Tags: a field's number in onnx.proto, and 2 for what has a length. Every length here is one byte.
_ENTRY, _KEY, _VALUE = (
    14 << 3 | 2,
    1 << 3 | 2,
    2 << 3 | 2,
)  # metadata_props of the model; key and value in there
_INNER_HEAD = bytes([_KEY, len(SEAL_KEY), *SEAL_KEY.encode(), _VALUE, _DIGITS])
_HEAD = bytes([_ENTRY, len(_INNER_HEAD) + _DIGITS]) + _INNER_HEAD
_SPOILT = 4  # bytes of the head that may be wrong in what is still taken for one: it may be the place of the damage

_HINT = f"Copy it again, or export it again. If it was changed on purpose, remove {SEAL_KEY} from its metadata."


def embed_checksum(model: bytes) -> bytes:
    """A serialized ONNX model → the file with its checksum."""
    return model + _HEAD + _digest(model + _HEAD)


def verify_checksum(path: Path, content: Content) -> bool:
    """Whether the ONNX file ``content`` carries a checksum; it then fits.

    Raises BundleError naming ``path`` where there is one that doesn't fit, or that isn't the end of the file any more.
    """
    end = len(content) - _DIGITS
    head = content[max(end - len(_HEAD), 0) : max(end, 0)]
    sealed = len(head) == len(_HEAD) and sum(map(ne, head, _HEAD)) <= _SPOILT
    if sealed:
        with (
            memoryview(content) as view,
            view[:end] as front,
        ):  # a view left open would keep a mapped file from closing
            digest = _digest(front)
        if digest != content[end:]:
            raise BundleError(
                path, "it is damaged: its SHA-256 is not the one that it carries", _HINT
            )
    if not sealed and content.find(_HEAD) >= 0:
        raise BundleError(
            path,
            f"it is damaged, or was changed after the export: {SEAL_KEY} is not at its end",
            _HINT,
        )
    return sealed


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
