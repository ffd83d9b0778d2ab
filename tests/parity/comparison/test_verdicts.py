"""What int8 may answer otherwise than the trained network: also whether a photo is unknown."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.parity.comparison.runtime_tally import RuntimeTally
from edgetl.parity.results import RuntimeResult
from edgetl.parity.stages import Stages
from edgetl.parity.tolerances import INT8_OUTLIERS, Tolerance
from edgetl.runtime.bundle.unknown_limits import UnknownLimits

LIMITS = UnknownLimits(threshold=3.0, keep_known=0.95, sensitivity=20.0)
PROBABILITIES = np.array([0.9, 0.1], np.float32)
INT8 = Tolerance(0.25, sensitivity=LIMITS.sensitivity, outliers=INT8_OUTLIERS)
"""A score may be off by 10, then."""


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


def test_a_verdict_further_off_is_a_tie_where_it_is_one_in_ten() -> None:
    same, other = (1.0, 1.1), (7.0, 2.5)
    assert judged(*[same] * 9, other).status == "passed"
    assert judged(*[same] * 8, other).status == "failed"  # one in nine


def answered(*logits: float, tolerance: Tolerance = INT8) -> RuntimeResult:
    """The verdict on photos whose first logit is 3 by the network, and this by the runtime."""
    tally = RuntimeTally("int8", ("a", "b"), tolerance, len(logits))
    for number, logit in enumerate(logits):
        reference, found = (
            Stages(logits=np.array([value, 0], np.float32), probabilities=PROBABILITIES)
            for value in (3.0, logit)
        )
        tally.add(f"{number}.jpg", reference, found)
    return tally.result(0.0)


def test_one_photo_in_ten_may_have_logits_beyond_the_limit() -> None:
    result = answered(*[3.1] * 18, 5.0, 5.5)
    stage = result.stage("logits")
    assert result.status == "passed" and stage is not None
    assert (stage.worst.photo, stage.beyond, stage.allowed) == ("19.jpg", 2, 2)
    assert "; 2 photos beyond, 2 allowed" in str(stage)
    failed = answered(*[3.1] * 17, 5.0, 5.0, 5.0)
    assert failed.status == "failed" and "3 photos beyond, 2 allowed" in failed.reason


def test_no_photo_may_where_the_precision_has_a_bound() -> None:
    exact = Tolerance(0.25)
    assert answered(*[3.1] * 19, 5.0, tolerance=exact).status == "failed"
    assert "beyond" not in answered(*[3.1] * 19, 5.0, tolerance=exact).reason


@pytest.mark.parametrize("logit", [np.nan, np.inf])
def test_a_logit_that_is_no_number_fails_however_rare(logit: float) -> None:
    assert answered(*[3.1] * 19, logit).status == "failed"


def test_pixels_are_equal_for_every_photo() -> None:
    assert [INT8.photos_beyond(stage, 100) for stage in ("resized", "normalized")] == [0, 0]
    assert INT8.photos_beyond("evidence", 100) == 10
