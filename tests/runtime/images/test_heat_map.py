"""The heat map: the place with the most evidence is the brightest, where the photo has it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgetl.runtime.images.heat_map import explanation, overlay, seen_box
from edgetl.runtime.images.spec import PreprocessSpec

HALF = (0.5, 0.5, 0.5)
EVIDENCE = np.eye(5, dtype=np.float32)
CROPPED = PreprocessSpec("shorter_side", 64, "bicubic", (56, 56), HALF, HALF)
SQUASHED = PreprocessSpec("squash", (48, 56), "bilinear", None, HALF, HALF)


@pytest.mark.parametrize(
    ("spec", "size", "expected"),
    [
        (SQUASHED, (200, 100), (0, 0, 200, 100)),
        (CROPPED, (64, 64), (4, 4, 60, 60)),
        (CROPPED, (400, 200), (112, 12, 288, 188)),
        (CROPPED, (200, 400), (12, 112, 188, 288)),
    ],
)
def test_what_the_network_sees_is_found_in_the_photo(spec, size, expected):
    found = np.array(seen_box(spec, *size))
    assert abs(found - expected).max() <= 1


def test_the_most_evidence_is_the_brightest_also_in_grey():
    evidence = np.zeros((4, 4), np.float32)
    evidence[0, 3], evidence[2, 1] = 2, -5
    drawn = overlay(Image.new("RGB", (400, 200), (90, 90, 90)), evidence, CROPPED)
    grey = np.asarray(drawn.convert("L"), np.int16)
    assert drawn.size == (400, 200)
    top, left = 12 + 176 // 8, 112 + 7 * 176 // 8  # the middle of that place
    assert grey[top, left] > grey[top, left - 88] + 60
    assert grey[100, 50] < 40  # outside of the crop


def test_without_evidence_nothing_is_bright():
    drawn = overlay(Image.new("RGB", (64, 64)), np.full((4, 4), -1, np.float32), SQUASHED)
    assert np.asarray(drawn)[..., 0].max() < 10


def test_any_shape_and_any_caption_can_be_drawn():
    for size in ((1, 1), (900, 3), (3, 900), (3000, 1), (1, 3000)):
        picture = explanation(Image.new("RGB", size), EVIDENCE, CROPPED, "花 9 %")
        assert picture.width < 2000 and picture.height < 700
