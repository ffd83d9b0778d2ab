from __future__ import annotations

import numpy as np
import pytest

from edgetl.runtime.bundle.unknown_limits import UnknownLimits, known_threshold, least_photos


@pytest.mark.parametrize("keep", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("photos", [19, 40, 200])
def test_the_next_known_photo_is_kept_as_often_as_promised(keep: float, photos: int) -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, photos + 1)).astype(np.float32)
    kept = np.mean([draw[-1] <= known_threshold(draw[:-1], keep) for draw in draws])
    assert keep - 0.015 < kept < keep + 1 / (photos + 1) + 0.015


def test_the_least_share_to_keep_gives_the_lowest_score() -> None:
    assert known_threshold(np.array([3.0, 1.0, 2.0], np.float32), 1e-12) == 1.0


def test_too_few_photos_give_the_highest_score() -> None:
    assert known_threshold(np.array([3.0, 1.0, 2.0], np.float32), 0.95) == 3.0
    assert known_threshold(np.arange(1, 20, dtype=np.float32), 0.95) == 19.0
    assert (least_photos(0.95), least_photos(0.9), least_photos(0.99)) == (19, 9, 99)


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": float("nan")},
        {"threshold": -1e300},
        {"keep_known": 1.0},
        {"keep_known": 0},
        {"sensitivity": 0},
    ],
)
def test_values_that_can_not_be_are_refused(changes: dict[str, float]) -> None:
    values = {"threshold": 1.5, "keep_known": 0.95, "sensitivity": 20.0, "figures": {}}
    assert UnknownLimits.from_dict(values) == UnknownLimits(1.5, 0.95, 20.0)
    with pytest.raises(ValueError, match="unknown"):
        UnknownLimits.from_dict({**values, **changes})
