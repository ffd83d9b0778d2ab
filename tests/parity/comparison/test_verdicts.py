"""Whether a photo is unknown: what int8 may decide otherwise than the trained network."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.parity.comparison.runtime_tally import RuntimeTally
from edgetl.parity.results import RuntimeResult
from edgetl.parity.stages import Stages
from edgetl.parity.tolerances import Tolerance
from edgetl.runtime.bundle.unknown_limits import UnknownLimits

LIMITS = UnknownLimits(threshold=3.0, keep_known=0.95, sensitivity=20.0)
PROBABILITIES = np.array([0.9, 0.1], np.float32)
INT8 = Tolerance(0.25, sensitivity=LIMITS.sensitivity)  # a score may be off by 10, then


def judged(*scores: tuple[float, float]) -> RuntimeResult:
    """The verdict on photos with these scores, the network's and the runtime's."""
    tally = RuntimeTally("int8", ("a", "b"), INT8, len(scores), unknown=LIMITS)
    for number, pair in enumerate(scores):
        reference, found = (
            Stages(probabilities=PROBABILITIES, ood_score=np.array(score, np.float32))
            for score in pair
        )
        tally.add(f"{number}.jpg", reference, found)
    return tally.result(0.0)


@pytest.mark.parametrize(
    ("score", "passed"), [(2.0, True), (0.5, False), (4.5, True), (7.0, False)]
)
def test_another_verdict_far_from_the_threshold_fails(score: float, passed: bool) -> None:
    other = 3.5 if score < LIMITS.threshold else 2.5
    result = judged((score, other))
    assert len(result.decisions.flips) == 1
    assert (result.status == "passed") == passed


def test_a_few_other_verdicts_near_the_threshold_are_ties_and_many_are_not() -> None:
    same, other = (1.0, 1.1), (2.9, 3.1)
    assert judged(*[same] * 8, *[other] * 2).status == "passed"
    assert judged(*[same] * 7, *[other] * 3).status == "failed"
    assert judged(same, other).status == "passed"  # too few to tell
