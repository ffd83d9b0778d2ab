"""The aspect ratio of photos, and the size at which training photos are stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL.ExifTags import Base

from edgetl.data.image_folder import Sample
from edgetl.runtime.images.decode import identify

_MARGIN = 1.3  # stored side / network's side, so that crops are enlarged less
SIZE_STEP = 32  # pixels; most networks halve their input five times
_MAX_ASPECT = 2.0  # longer photos are squashed to this
_SAMPLE_SIZE = 100  # photos whose aspect is looked up
_SIDEWAYS = range(5, 9)  # EXIF orientations that swap width and height


def stored_size(size: tuple[int, int], aspect: float) -> tuple[int, int]:
    """(height, width) at which training photos are stored for a network that takes ``size``.

    aspect  width / height of most of them: a long photo that is squashed to a square would be
            blurred along its longer side
    """
    return size_of_aspect(_MARGIN * math.sqrt(size[0] * size[1]), aspect)


def size_of_aspect(side: float, aspect: float) -> tuple[int, int]:
    """(height, width) with about as many pixels as a square of ``side``, multiples of SIZE_STEP.

    aspect  width / height; clipped to 1/2..2
    """
    stretch = math.sqrt(min(max(aspect, 1 / _MAX_ASPECT), _MAX_ASPECT))
    height, width = (
        max(round(length / SIZE_STEP), 1) * SIZE_STEP for length in (side / stretch, side * stretch)
    )
    return height, width


def sample_aspects(samples: Sequence[Sample]) -> list[float]:
    """Width / height of some of the photos, whatever their order; [1] if none can be read."""
    some = sorted(samples, key=lambda sample: sample.digest)[:_SAMPLE_SIZE]
    return [aspect for sample in some if (aspect := _aspect(sample.path))] or [1.0]


def typical_aspect(samples: Sequence[Sample]) -> float:
    """The median width / height of some of the photos; 1 if none can be read."""
    return float(np.median(sample_aspects(samples)))


def _aspect(path: Path) -> float | None:
    """Width / height from the file's header; None if that can't be read.

    A PNG's orientation is ignored: it may be at the end of the file.
    """
    if not path.is_file():  # opening a pipe would block
        return None
    try:
        with path.open("rb") as file:
            image = identify(file, str(path))
            turned = image.format != "PNG" and image.getexif().get(Base.Orientation) in _SIDEWAYS
            return image.height / image.width if turned else image.width / image.height
    except Exception:  # Pillow raises many kinds for a broken file; decoding will report it
        return None
