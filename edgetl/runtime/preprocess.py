"""The preprocessing contract outside the graph: Pillow for the resize, numpy for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl.runtime.spec import PreprocessSpec

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize_image(image: Image.Image, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resize and crop an RGB picture as ``spec`` says → uint8 [h, w, 3], values 0..255.

    One axis a call: Pillow 13 runs the vertical pass first on some tall pictures, which moves pixels by
    several levels, while the contract is horizontal, then vertical. A single-axis call leaves it no choice.
    """
    height, width = spec.resized_size(image.height, image.width)
    top, left = spec.crop_origin(height, width)
    resample = _FILTERS[spec.interpolation]
    if width != image.width:
        image = image.resize((width, image.height), resample)
    if spec.crop is not None and spec.crop[1] != width:  # before the vertical pass, which then has less to do
        image = image.crop((left, 0, left + spec.crop[1], image.height))
    if height != image.height:
        image = image.resize((image.width, height), resample)
    if spec.crop is not None and spec.crop[0] != height:
        image = image.crop((0, top, image.width, top + spec.crop[0]))
    return np.asarray(image)


def normalization(spec: PreprocessSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(scale, bias), float32 [3] each: ``normalized = float32(pixel) * scale + bias``, rounded after each step.

    That is (pixel / 255 − mean) / std with the constants computed in double precision first.
    """
    mean, std = np.asarray(spec.mean, np.float64), np.asarray(spec.std, np.float64)
    return (1.0 / (255.0 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def normalize(pixels: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.float32]:
    """uint8 [N, h, w, 3] → float32 [N, 3, h, w], the network's input."""
    scale, bias = normalization(spec)
    scaled: NDArray[Any] = pixels.astype(np.float32) * scale + bias
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)
