"""The preprocessing contract outside the graph: Pillow for the resize, numpy for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from edgetl.errors import ImageError
from edgetl.runtime.images.decode import MAX_PIXELS, describe
from edgetl.runtime.images.spec import PreprocessSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray  # takes a millisecond at start

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize_image(image: Image.Image, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resize and crop an RGB image as ``spec`` says → uint8 [h, w, 3]: the graph's ``resized``.

    Raises ImageError for an image so long and thin that its resize would exceed MAX_PIXELS.
    """
    origin = spec.crop_origin(*spec.resized_size(image.height, image.width))
    return _resize_window(image, spec, origin, spec.output_size(image.height, image.width))


def resize_for_graph(image: Image.Image, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resize an RGB image for the whole graph, which then only crops it → uint8 [h', w', 3].

    The graph skips its resize for an image that already has the resized size, and then crops. So
    that photos of every shape can be stacked into one batch, "shorter_side" with a crop gives a
    square of ``size`` pixels, placed so that the graph's crop of it is the contract's crop of the
    whole. Raises ImageError as ``resize_image`` does.
    """
    height, width = spec.resized_size(image.height, image.width)
    if spec.crop is None or isinstance(spec.size, tuple):
        return _resize_window(image, spec, (0, 0), (height, width))
    top, left = spec.crop_origin(height, width)
    top_in_square, left_in_square = spec.crop_origin(spec.size, spec.size)
    origin = top - top_in_square, left - left_in_square
    return _resize_window(image, spec, origin, (spec.size, spec.size))


def refuse_extreme_shape(
    image: Image.Image, spec: PreprocessSpec, max_pixels: int = MAX_PIXELS
) -> None:
    """Raises ImageError for an image whose resize would take more than ``max_pixels``.

    An image one pixel wide and a million high has a few bytes on disk, and gigabytes once its
    shorter side is enlarged.
    """
    height, width = spec.resized_size(image.height, image.width)
    largest = width * max(image.height, height)
    if largest > max_pixels:
        raise ImageError(
            describe(image),
            f"resizing {image.width}×{image.height} takes {largest:,} pixels; "
            f"the limit is {max_pixels:,}",
        )


def _resize_window(
    image: Image.Image, spec: PreprocessSpec, origin: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The part of the resized image at ``origin`` (top, left) with ``size`` (height, width).

    Each axis has its own call: Pillow 13 runs the vertical pass first on some tall images, which
    changes pixels by several levels, while the contract is horizontal, then vertical.
    """
    refuse_extreme_shape(image, spec)
    name, resample = describe(image), _FILTERS[spec.interpolation]
    full_height, full_width = spec.resized_size(image.height, image.width)
    (top, left), (height, width) = origin, size
    try:
        if full_width != image.width:
            image = image.resize((full_width, image.height), resample)
        if width != full_width:  # before the vertical pass, to make that smaller
            image = image.crop((left, 0, left + width, image.height))
        if full_height != image.height:
            image = image.resize((width, full_height), resample)
        if height != full_height:
            image = image.crop((0, top, width, top + height))
        return np.asarray(image)
    except MemoryError as error:
        raise ImageError(name, "there is not enough memory to resize it") from error


def normalize(pixels: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.float32]:
    """uint8 [N, h, w, 3] → float32 [N, 3, h, w], the network's input."""
    scale, bias = spec.normalization
    scaled: NDArray[Any] = pixels.astype(np.float32) * scale + bias
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)
