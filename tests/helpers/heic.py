"""HEIC files, which the decoder under test can't write."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pillow_heif
from PIL import Image

LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}


def heic(picture: Image.Image, **options: object) -> bytes:
    """A HEIC file of ``picture``, an 8-bit image."""
    file = BytesIO()
    pillow_heif.from_pillow(picture).save(file, **options)
    return file.getvalue()


def deep_heic(pixels: np.ndarray, bits: int = 10) -> bytes:
    """A lossless HEIC file of the high 10 or 12 ``bits`` of ``pixels``, uint16 [H, W, 3]."""
    height, width = pixels.shape[:2]
    image = pillow_heif.from_bytes("RGB;16", (width, height), pixels.tobytes())
    file = BytesIO()
    image.save(file, bit_depth=bits, **LOSSLESS)
    return file.getvalue()
