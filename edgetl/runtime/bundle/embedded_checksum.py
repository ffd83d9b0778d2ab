"""The checksum inside an exported ONNX file, which protects a model.onnx outside its bundle.

It is the entry ``edgetl.sha256`` of the model's metadata, and its digits are the last bytes of the
file: a reader finds it without a parser, protobuf allows a message's fields in any order, and every
ONNX tool reads the file as before. Its value is the SHA-256 of everything before it. So
``head -c -64 model.onnx | sha256sum`` prints the same digits as ``tail -c 64 model.onnx``.

A file whose entry does not match is refused: programs that save a model again keep its metadata,
and nothing in the file tells such a change from a flipped bit. To change a model on purpose, remove
the entry.
"""

from __future__ import annotations

import hashlib
from operator import ne
from pathlib import Path

from edgetl.errors import BundleError
from edgetl.runtime.bundle.bundle_folder import METADATA_KEY
from edgetl.runtime.bundle.memory_copy import Content

CHECKSUM_KEY = f"{METADATA_KEY}.sha256"

_DIGITS = 64  # hexadecimal digits of a SHA-256
# Tags: a field's number in onnx.proto, and 2 for "has a length". Every length here is one byte.
_METADATA_PROPS = 14 << 3 | 2  # of the model
_KEY, _VALUE = 1 << 3 | 2, 2 << 3 | 2  # of the entry
_ENTRY_HEAD = bytes([_KEY, len(CHECKSUM_KEY), *CHECKSUM_KEY.encode(), _VALUE, _DIGITS])
_HEAD = bytes([_METADATA_PROPS, len(_ENTRY_HEAD) + _DIGITS]) + _ENTRY_HEAD
# Bytes of the head that may be wrong in what is still taken for one: the damage may be right there.
_MAX_WRONG_BYTES = 4

_HINT = (
    "Copy it again, or export it again. If it was changed on purpose, remove "
    f"{CHECKSUM_KEY} from its metadata."
)


def embed_checksum(model: bytes) -> bytes:
    """A serialized ONNX model → the same file with its checksum."""
    return model + _HEAD + _digest(model + _HEAD)


def verify_checksum(path: Path, content: Content) -> bool:
    """Verify the checksum in the ONNX file ``content``; False if it has none.

    Raises BundleError naming ``path`` if the checksum does not match, or is not at the end.
    """
    end = len(content) - _DIGITS
    head = content[max(end - len(_HEAD), 0) : max(end, 0)]
    if len(head) == len(_HEAD) and sum(map(ne, head, _HEAD)) <= _MAX_WRONG_BYTES:
        # A view that is left open would keep a mapped file from being closed.
        with memoryview(content) as view, view[:end] as front:
            digest = _digest(front)
        if digest != content[end:]:
            reason = "it is damaged: its SHA-256 is not the one that it carries"
            raise BundleError(path, reason, _HINT)
        return True
    if content.find(_HEAD) >= 0:
        reason = f"it is damaged, or was changed after the export: {CHECKSUM_KEY} is not at its end"
        raise BundleError(path, reason, _HINT)
    return False


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
