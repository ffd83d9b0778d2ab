from __future__ import annotations

import pytest

from edgetl.runtime.bundle.unknown_limits import UnknownLimits


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
