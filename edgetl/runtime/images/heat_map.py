"""A map of evidence laid over a photo.

The colours run from dark blue to light yellow: the brighter place has more evidence, also for those
who can't tell red from green, and in grey.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from edgetl.runtime.images.resize import resize_image
from edgetl.runtime.images.spec import PreprocessSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DARK, _BRIGHT = np.array([0, 34, 78], np.float32), np.array([254, 232, 56], np.float32)
_OPACITY = 0.6  # of the colours over the photo in grey
_UNSEEN = 0.35  # brightness of what the crop leaves out
_LEVEL = 0.5  # of the line, as a share of the largest evidence
_PANEL = (620, 440)  # pixels that one picture fills, across or down
_MARGIN, _TEXT = 16, 18  # pixels


def overlay(photo: Image.Image, evidence: NDArray[np.float32], spec: PreprocessSpec) -> Image.Image:
    """An upright RGB photo in grey, coloured by the evidence for one class, of the same size.

    evidence  [y, x], for the part of the photo that ``spec`` lets the network see; the largest
              value is the brightest colour, and what is not above 0 the darkest

    A white line surrounds what is at least half of the largest. What the network does not see is
    dark and has no colour.
    """
    left, top, right, bottom = seen_box(spec, photo.width, photo.height)
    seen = _coloured(photo.crop((left, top, right, bottom)), evidence)
    whole = Image.eval(photo.convert("L"), lambda value: int(value * _UNSEEN)).convert("RGB")
    whole.paste(seen, (left, top))
    return whole


def seen_box(spec: PreprocessSpec, width: int, height: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what the network sees of a photo, in the photo's pixels."""
    full_height, full_width = spec.resized_size(height, width)
    top, left = spec.crop_origin(full_height, full_width)
    seen_height, seen_width = spec.output_size(height, width)
    across, down = width / full_width, height / full_height
    begin = round(left * across), round(top * down)
    end = round((left + seen_width) * across), round((top + seen_height) * down)
    return *begin, max(end[0], begin[0] + 1), max(end[1], begin[1] + 1)


def _coloured(photo: Image.Image, evidence: NDArray[np.float32]) -> Image.Image:
    small = Image.fromarray(np.maximum(evidence, 0).astype(np.float32))
    strength = np.asarray(small.resize(photo.size, Image.Resampling.BICUBIC)).clip(0)
    strength = strength / max(float(strength.max()), np.finfo(np.float32).tiny)
    colours = _DARK + strength[..., None] * (_BRIGHT - _DARK)
    grey = np.asarray(photo.convert("L"), np.float32)[..., None]
    mixed = (1 - _OPACITY) * grey + _OPACITY * colours
    inside = Image.fromarray((strength >= _LEVEL).astype(np.uint8) * 255)
    line = 1 + 2 * (min(photo.size) // 200)  # pixels, odd
    edge = np.asarray(inside) - np.asarray(inside.filter(ImageFilter.MinFilter(line + 2)))
    mixed[edge > 0] = 255
    return Image.fromarray(mixed.astype(np.uint8))


def explanation(
    photo: Image.Image, evidence: NDArray[np.float32], spec: PreprocessSpec, caption: str
) -> Image.Image:
    """A picture of two: the upright photo with the evidence, and what the network sees with it.

    caption  one line below them
    """
    seen = Image.fromarray(resize_image(photo, spec))
    scale = min(_PANEL[0] / photo.width, _PANEL[1] / photo.height)
    across, down = round(photo.width * scale), round(photo.height * scale)
    whole = photo.resize((max(across, 1), max(down, 1)), Image.Resampling.BICUBIC)
    size = max(whole.height * seen.width // seen.height, 1), whole.height
    seen = seen.resize(size, Image.Resampling.BICUBIC)
    caption = caption.encode("latin-1", "backslashreplace").decode("latin-1")  # the font's letters
    font = ImageFont.load_default(_TEXT)
    text_width = round(font.getlength(caption))
    width = max(whole.width + _MARGIN + seen.width, text_width) + 2 * _MARGIN
    picture = Image.new("RGB", (width, whole.height + 3 * _MARGIN + _TEXT), (255, 255, 255))
    picture.paste(overlay(whole, evidence, spec), (_MARGIN, _MARGIN))
    picture.paste(_coloured(seen, evidence), (2 * _MARGIN + whole.width, _MARGIN))
    below = 2 * _MARGIN + whole.height - 4
    ImageDraw.Draw(picture).text((_MARGIN, below), caption, (29, 31, 36), font)
    return picture
