"""Thumbnails inside a report's HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from edgetl.errors import ImageError
from edgetl.runtime.images.decode import read_image

_QUALITY = 80  # of the JPEG: some kilobytes a photo


def thumbnail(
    path: Path,
    width: int,
    height: int,
    draw: Callable[[Image.Image], Image.Image] | None = None,
) -> str | None:
    """A data URI of the upright photo as a JPEG, or None if it can't be read.

    width, height  its largest size, pixels
    draw           changes the small photo before it is written
    """
    try:
        photo = read_image(path)
    except ImageError:
        return None
    photo.thumbnail((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    photo = draw(photo) if draw else photo
    photo.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
