from __future__ import annotations

import numpy as np
import pytest

from edgetl.runtime.bundle.unknown_limits import UnknownLimits


def test_a_score_has_the_same_verdict_alone_and_among_others() -> None:
    score = np.float32(0.1)  # a little more than 0.1, to which float32 would round the threshold
    limits = UnknownLimits(0.1, 0.95, 20.0)
    assert limits.is_unknown(float(score)) and limits.is_unknown(score)
    assert limits.is_unknown(np.array([score, 0.0, np.nan], np.float32)).tolist() == [1, 0, 0]


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
