"""A camera that takes worse photos is noticed, whatever is wrong with it.

The embedding here is a few plain figures of each photo: a network's would take too long.
``scripts/bench_drift.py`` measures the same with real photos and real models.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from helpers.corruptions import CORRUPTIONS
from helpers.pictures import photo
from PIL import Image

from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.drift.comparison import AnswerComparison, compare
from edgetl.runtime.drift.photo_answers import PhotoAnswers

PHOTOS = 100


def figures(photos: Iterable[Image.Image]) -> np.ndarray:
    """Light, colours and edges at two scales, float32 [N, 15]."""
    rows = []
    for picture in photos:
        fine = np.asarray(picture) / 255
        coarse = np.asarray(picture.reduce(3)) / 255
        edges = [np.abs(np.diff(values, axis=axis)) for values in (fine, coarse) for axis in (0, 1)]
        values = [fine, *edges]
        rows.append(np.concatenate([each.mean((0, 1)) for each in values]))
    return np.array(rows, np.float32)


KNOWN = figures(photo(seed) for seed in range(PHOTOS))
SCALE, SPREAD = KNOWN.mean(0), KNOWN.std(0)


def compared(photos: Iterable[Image.Image]) -> AnswerComparison:
    """With held-out photos, all of one label, of which the model is always as sure."""
    old, new = ((each - SCALE) / SPREAD for each in (KNOWN, figures(photos)))
    logits = np.tile(np.log([0.95, 0.05]).astype(np.float32), (PHOTOS, 1))
    known = HeldOut(np.zeros(PHOTOS, np.int32), logits, np.float16(old), (old**2).mean(1))
    shares = np.tile(np.array([0.95, 0.05], np.float32), (len(new), 1))
    names, score = tuple(map(str, range(len(new)))), (new**2).mean(1)
    return compare(known, PhotoAnswers(names, shares, new, score, score > 1, {}), 1.0)


def test_other_photos_of_the_same_camera_are_no_drift():
    assert compared(photo(1000 + seed) for seed in range(PHOTOS)).p_value > 0.05


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_camera_that_got_worse_is_noticed(name):
    rng = np.random.default_rng(0)
    worse = [CORRUPTIONS[name](photo(1000 + seed), rng) for seed in range(PHOTOS)]
    assert all(one.mode == "RGB" and one.size == (64, 48) for one in worse)
    assert compared(worse).p_value <= 0.01
