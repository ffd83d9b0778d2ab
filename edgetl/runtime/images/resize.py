"""The preprocessing contract outside the graph: Pillow for the resize, numpy for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from edgetl.errors import ImageError
from edgetl.runtime.images.decode import MAX_PIXELS, describe
from edgetl.runtime.images.spec import PreprocessSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray  # costs a program of one photo a millisecond

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize_image(image: Image.Image, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resize and crop an RGB picture as ``spec`` says → uint8 [h, w, 3], values 0..255: the graph's ``resized``.

    Raises ImageError for a picture so long and thin that its resize would not fit in MAX_PIXELS.
    """
    resized = spec.resized_size(image.height, image.width)
    return _resize_window(
        image, spec, spec.crop_origin(*resized), spec.output_size(image.height, image.width)
    )


def resize_for_graph(image: Image.Image, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resize an RGB picture so far that the exported graph has only its crop left to do → uint8 [h', w', 3].

    The graph leaves its resize out where a picture already has the size that the resize would give, and then
    cuts its crop. So that photos of every shape still stack into one batch, "shorter_side" with a crop gives a
    square of ``size`` pixels, placed so that the graph's crop of it is the contract's crop of the whole.
    Raises ImageError as ``resize_image`` does.
    """
    height, width = spec.resized_size(image.height, image.width)
    if spec.crop is None or isinstance(spec.size, tuple):
        return _resize_window(image, spec, (0, 0), (height, width))
    (top, left), (top_in_square, left_in_square) = (
        spec.crop_origin(height, width),
        spec.crop_origin(spec.size, spec.size),
    )
    return _resize_window(
        image, spec, (top - top_in_square, left - left_in_square), (spec.size, spec.size)
    )


def refuse_extreme_shape(
    image: Image.Image, spec: PreprocessSpec, max_pixels: int = MAX_PIXELS
) -> None:
    """Raises ImageError for a picture whose resize would take more than ``max_pixels``.

    One pixel wide and a million high is a few bytes on disk, and gigabytes once its shorter side is enlarged.
    """
    height, width = spec.resized_size(image.height, image.width)
    largest = width * max(image.height, height)
    if largest > max_pixels:
        raise ImageError(
            describe(image),
            f"resizing {image.width}×{image.height} takes {largest:,} pixels; the limit is {max_pixels:,}",
        )


def _resize_window(
    image: Image.Image, spec: PreprocessSpec, origin: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The part of the resized picture that starts at ``origin`` (top, left) and has ``size`` (height, width).

    One axis a call: Pillow 13 runs the vertical pass first on some tall pictures, which moves pixels by
    several levels, while the contract is horizontal, then vertical. A single-axis call leaves it no choice.
    """
    refuse_extreme_shape(image, spec)
    name, resample = describe(image), _FILTERS[spec.interpolation]
    (full_height, full_width), (top, left), (height, width) = (
        spec.resized_size(image.height, image.width),
        origin,
        size,
    )
    try:
        if full_width != image.width:
            image = image.resize((full_width, image.height), resample)
        if width != full_width:  # before the vertical pass, which then has less to do
            image = image.crop((left, 0, left + width, image.height))
        if full_height != image.height:
            image = image.resize((width, full_height), resample)
        if height != full_height:
            image = image.crop((0, top, width, top + height))
        return np.asarray(image)
    except MemoryError as error:
        raise ImageError(name, "there is no memory left to resize it") from error


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
