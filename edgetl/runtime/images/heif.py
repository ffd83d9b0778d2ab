"""HEIC and HEIF photos, through pi-heif or pillow-heif: two distributions of one decoder."""

from __future__ import annotations

import re
from importlib import import_module
from io import BytesIO
from types import ModuleType

from PIL import Image

from edgetl.errors import ImageError

FORMAT = "HEIF"  # Pillow's name, also of HEIC
SUFFIXES = frozenset({".heic", ".heif", ".hif"})
NO_DECODER = 'it is a HEIC photo, which needs pi-heif: pip install "edgetl[heic]"'
_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
# A download into a file of its full size that was cut short ends in zeros, for which the decoder
# would invent pixels. No intact photo does: coded video never holds three zero bytes in a row.
_ZERO_TAIL = bytes(1024)
_ITEM_INFO = re.compile(rb"\0\0(..)infe[\2\3]...", re.DOTALL)  # size, name, version, flags


def is_heif(prefix: bytes) -> bool:
    """Whether a file that begins with ``prefix``, at least 12 bytes, is HEIC or HEIF."""
    return prefix[4:8] == b"ftyp" and prefix[8:12] in _BRANDS


def open_heif(content: bytes, name: str) -> Image.Image:
    """Read the header; no pixel is decoded yet. Raises ImageError, also without a decoder.

    The image has the size that it is shown at: decoding applies the container's own rotation.
    """
    decoder = _decoder(name)
    if content.endswith(_ZERO_TAIL):
        raise ImageError(name, "it is truncated: zeros in place of the last bytes")
    if not _has_readable_items(content):
        raise ImageError(name, "it is damaged (an item's type is not text)")
    try:
        image: Image.Image = decoder.HeifImageFile(BytesIO(content))
    except SyntaxError as error:
        raise ImageError(name, f"it is damaged ({str(error).strip()})") from error
    return image


def _has_readable_items(content: bytes) -> bool:
    """Whether the items' types are text: otherwise pi-heif 1.4.0 crashes the process."""
    for found in _ITEM_INFO.finditer(content):
        box = content[found.start() : found.start() + int.from_bytes(found[1])]
        try:
            box[16:].decode()  # behind the item's number and its protection
        except UnicodeDecodeError:
            return False
    return True


def _decoder(name: str) -> ModuleType:
    for package in ("pi_heif", "pillow_heif"):
        try:
            return import_module(package)
        except ImportError:
            continue
    hint = "Or convert it to JPEG with heif-convert (Linux) or sips (macOS)."
    raise ImageError(name, NO_DECODER, hint)
