"""Thumbnails inside a report's HTML file."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from edgetl.errors import ImageError
from edgetl.runtime.images.decode import read_image

_QUALITY = 80  # of the JPEG: some kilobytes a photo


def thumbnail(path: Path, width: int, height: int) -> str | None:
    """``read_small`` as a data URI."""
    photo = read_small(path, width, height)
    return None if photo is None else data_uri(photo)


def read_small(path: Path, width: int, height: int) -> Image.Image | None:
    """The upright RGB photo, at most so large, in pixels; None if it can't be read."""
    try:
        photo = read_image(path)
    except ImageError:
        return None
    photo.thumbnail((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return photo


def data_uri(photo: Image.Image) -> str:
    """A data URI of the photo as a JPEG."""
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
