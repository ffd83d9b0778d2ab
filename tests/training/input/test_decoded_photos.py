"""Decoded photos: their rows, their aspects, and which ones can't be read."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.input.decoded_photos import TrainingDecoder, decode_photos

SPEC = PreprocessSpec("shorter_side", 40, "bilinear", (32, 32), (0.5,) * 3, (0.5,) * 3)
DECODE = TrainingDecoder(SPEC, (64, 64))


def test_photos_are_stored_with_their_aspect_and_the_unreadable_ones_named(photos):
    out = np.zeros((7, 64, 64, 3), np.uint8)
    reports = []
    decoded = decode_photos(
        photos, DECODE, out, threads=3, progress=lambda *report: reports.append(report)
    )
    assert decoded.aspects[:5].tolist() == pytest.approx([1.5, 60 / 90, 1.5, 1.5, 1.5])
    assert sorted(path.name for path in decoded.unreadable) == ["5.jpg", "6.jpg"]
    assert reports == [("Decoding photos", done, 7) for done in range(8)]
    assert all(out[row].any() for row in range(5)) and not out[5:].any()


def test_a_part_of_the_photos_fills_only_its_own_rows(photos):
    out = np.zeros((7, 64, 64, 3), np.uint8)
    decode_photos(photos, DECODE, out, part=(1, 2), threads=2)
    assert [row for row, pixels in enumerate(out) if pixels.any()] == [1, 3]
