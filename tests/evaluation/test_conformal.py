from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from edgetl.evaluation.conformal import conformal_limit, least_photos


@pytest.mark.parametrize("keep", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("photos", [19, 40, 200])
def test_the_next_known_photo_is_kept_as_often_as_promised(keep: float, photos: int) -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, photos + 1)).astype(np.float32)
    kept = np.mean([draw[-1] <= conformal_limit(draw[:-1], keep) for draw in draws])
    assert keep - 0.015 < kept < keep + 1 / (photos + 1) + 0.015


def test_the_least_share_to_keep_gives_the_lowest_score() -> None:
    assert conformal_limit(np.array([3.0, 1.0, 2.0], np.float32), 1e-12) == 1.0


def test_too_few_photos_give_the_highest_score() -> None:
    assert conformal_limit(np.array([3.0, 1.0, 2.0], np.float32), 0.95) == 3.0
    assert conformal_limit(np.arange(1, 20, dtype=np.float32), 0.95) == 19.0
    assert (least_photos(0.95), least_photos(0.9), least_photos(0.99)) == (19, 9, 99)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_the_least_photos_are_the_first_that_suffice(level: float) -> None:
    """The ⌈(n + 1) level⌉-th smallest of n scores is one of them."""
    share, least = Fraction(str(level)), least_photos(level)
    assert math.ceil((least + 1) * share) <= least
    assert math.ceil(least * share) > least - 1
