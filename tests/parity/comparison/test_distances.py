"""Metrics, limits and verdicts, on arrays made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from edgetl.parity.comparison.distances import Percentile999, kl_divergence, margin, measure
from edgetl.parity.comparison.runtime_tally import RuntimeTally
from edgetl.parity.results import RuntimeResult
from edgetl.parity.stages import Refusal, Stages
from edgetl.parity.tolerances import Tolerance
from edgetl.runtime.bundle.probability_tolerances import PROBABILITY_TOLERANCES

LABELS = ("a", "b", "c")


def answer(*logits: float, change: float = 0.0) -> Stages:
    """A photo's last two stages; ``change`` is added to the first logit."""
    values = np.array(logits, np.float32)
    values[0] += change
    return Stages(logits=values, probabilities=softmax(values).astype(np.float32))


def judge(
    *pairs: tuple[Stages | Refusal, Stages | Refusal], tolerance: float = 1e-4
) -> RuntimeResult:
    tally = RuntimeTally("runtime", LABELS, Tolerance(tolerance), len(pairs))
    for number, (reference, found) in enumerate(pairs):
        tally.add(f"{number}.jpg", reference, found)
    return tally.result(0.0)


def test_the_worst_value_is_found_with_its_position() -> None:
    expected = np.zeros((3, 4, 5), np.float32)
    found = expected.copy()
    found[0, 0, 0], found[2, 1, 3] = 0.25, -0.5
    gap = measure(expected, found, 1.0, "p")
    assert (gap.largest, gap.position, gap.expected, gap.found) == (0.5, (2, 1, 3), 0.0, -0.5)
    assert (gap.differing, gap.size, gap.passed) == (2, 60, True)


def test_pixels_are_subtracted_without_overflow() -> None:
    gap = measure(np.array([[1, 255]], np.uint8), np.array([[255, 250]], np.uint8), 0.0, "p")
    assert gap.largest == 254.0


def test_the_limit_itself_passes() -> None:
    assert measure(np.array([0.0]), np.array([0.25]), 0.25, "p").passed
    assert not measure(np.array([0.0]), np.array([0.2501]), 0.25, "p").passed


def test_with_a_limit_of_0_any_difference_fails() -> None:
    assert measure(np.array([7], np.uint8), np.array([7], np.uint8), 0.0, "p").passed
    assert not measure(np.array([7], np.uint8), np.array([8], np.uint8), 0.0, "p").passed


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_fail_at_any_tolerance(value: float) -> None:
    broken = Stages(
        logits=np.array([1, value, 0], np.float32),
        probabilities=np.array([0.5, value, 0.5], np.float32),
    )
    result = judge((answer(3, 1, 0), answer(3, 1, 0)), (answer(3, 1, 0), broken), tolerance=1.0)
    assert (result.status, result.departure) == ("failed", "logits")
    assert "1.jpg" in result.reason and "NaN" in result.reason


def test_infinity_on_both_sides_fails() -> None:
    infinite = Stages(probabilities=np.array([math.inf, 0, 0], np.float32))
    assert judge((infinite, infinite)).status == "failed"


def test_a_different_shape_fails() -> None:
    result = judge((answer(3, 1, 0), answer(3, 1, 0, 2)))
    assert (result.status, result.departure) == ("failed", "logits")
    assert "shape [4] where the reference has [3]" in result.reason


def test_the_first_stage_beyond_its_limit_is_named_not_the_worst() -> None:
    reference = Stages(
        normalized=np.zeros(4, np.float32),
        logits=np.zeros(3, np.float32),
        probabilities=np.ones(3) / 3,
    )
    found = Stages(
        normalized=np.full(4, 2e-5, np.float32),
        logits=np.full(3, 9, np.float32),
        probabilities=np.ones(3) / 3,
    )
    assert judge((reference, found)).departure == "normalized"


def test_a_changed_logit_shows_though_the_probabilities_are_saturated() -> None:
    result = judge((answer(40, 0, 0), answer(40, 0, 0, change=-0.5)))
    probabilities = result.stage("probabilities")
    assert probabilities is not None and probabilities.passed
    assert (result.status, result.departure) == ("failed", "logits")


def test_a_flip_inside_the_margin_is_a_tie_and_passes() -> None:
    reference, found = answer(2.0, 2.00001, 0), answer(2.0, 2.00001, 0, change=0.00002)
    result = judge((reference, found))
    assert result.status == "passed"
    assert [flip.tie for flip in result.decisions.flips] == [True]
    assert (result.decisions.ties, result.decisions.real_flips) == (1, ())
    assert (result.decisions.flips[0].expected, result.decisions.flips[0].found) == ("b", "a")


def test_a_flip_outside_the_margin_fails_though_every_stage_passes() -> None:
    reference = Stages(probabilities=np.array([0.50, 0.35, 0.15], np.float32))
    found = Stages(probabilities=np.array([0.42, 0.43, 0.15], np.float32))
    result = judge((reference, found), tolerance=0.1)
    assert all(stage.passed for stage in result.stages)
    assert (result.status, result.departure) == ("failed", "decision")
    assert "'b', by the reference 'a'" in result.reason


def test_the_logits_limit_guarantees_the_tolerance_on_probabilities() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        temperature = rng.uniform(0.3, 3)
        logits = rng.normal(0, 0.1, 5)
        limit = Tolerance(1e-3, temperature).limit("logits", Stages(logits=logits))
        moved = logits + rng.uniform(-limit, limit, 5)
        assert np.abs(softmax(moved / temperature) - softmax(logits / temperature)).max() <= 1e-3


@pytest.mark.parametrize(
    ("logits", "scale"), [((5, -8, 1), 8), ((0.5, -1, 0), 2), ((math.nan, 9, 0), 2), ((), 2)]
)
def test_the_logits_limit_grows_with_the_largest_logit_or_the_temperature(
    logits: tuple[float, ...], scale: float
) -> None:
    assert (
        Tolerance(1e-3, temperature=2.0).limit("logits", Stages(logits=np.array(logits)))
        == 2e-3 * scale
    )


def test_kl_divergence_against_scipy() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        p, q = softmax(rng.normal(0, 3, (2, 6)), axis=1)
        assert kl_divergence(p, q) == pytest.approx(entropy(p, q), rel=1e-6, abs=1e-12)
    assert kl_divergence(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0.0
    assert (
        kl_divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])) < math.inf
    )  # a softmax that underflowed
    assert kl_divergence(np.array([0.5, 0.5]), np.array([math.nan, 1.0])) == math.inf


def test_margin() -> None:
    assert margin(np.array([0.1, 0.6, 0.3])) == pytest.approx(0.3)
    assert margin(np.array([0.5, 0.5])) == 0.0
    assert margin(np.array([1.0])) == 1.0


def test_the_percentile_is_over_all_photos() -> None:
    rng = np.random.default_rng(2)
    expected, found = rng.random((2, 50, 3)).astype(np.float32)
    result = judge(
        *(
            (Stages(probabilities=e), Stages(probabilities=f))
            for e, f in zip(expected, found, strict=True)
        )
    )
    stage = result.stage("probabilities")
    assert stage is not None
    assert stage.p999 == pytest.approx(
        np.percentile(np.abs(expected - found), 99.9, method="higher")
    )
    assert stage.worst.largest == pytest.approx(np.abs(expected - found).max())
    assert len(result.decisions.worst) == 6
    assert [one.distance for one in result.decisions.worst] == sorted(
        (o.distance for o in result.decisions.worst), reverse=True
    )


@pytest.mark.parametrize(
    ("photos", "classes"), [(1, 1), (7, 3), (400, 3), (999, 1), (1002, 1), (60, 1000)]
)
def test_the_percentile_needs_a_thousandth_of_the_memory(photos: int, classes: int) -> None:
    values = np.random.default_rng(photos).exponential(1, (photos, classes)).astype(np.float32)
    percentile = Percentile999(photos)
    for part in values:
        percentile.add(part)
        # Private, since the memory that it takes shows nowhere else.
        assert percentile._kept.size <= 2 * (photos * classes // 1000 + 1) + classes
    assert percentile.value() == np.percentile(values, 99.9, method="higher")


def test_photos_must_be_refused_by_both_or_by_none() -> None:
    good, refused = answer(3, 1, 0), Refusal("it is damaged")
    assert judge((good, good), (refused, refused)).status == "passed"
    for pair in ((good, refused), (refused, good)):
        result = judge((good, good), pair)
        assert (result.status, result.departure) == ("failed", "decoded")
        assert "1.jpg" in result.reason


def test_nothing_compared_fails() -> None:
    assert judge().status == "failed"
    assert judge((Refusal("x"), Refusal("x"))).status == "failed"


def test_a_runtime_without_probabilities_fails() -> None:
    reference = Stages(
        resized=np.zeros((2, 2, 3), np.uint8), probabilities=np.array([1, 0, 0], np.float32)
    )
    result = judge((reference, Stages(resized=np.zeros((2, 2, 3), np.uint8))))
    assert (result.status, result.departure) == ("failed", "probabilities")


def test_the_default_tolerances_grow_as_precision_falls() -> None:
    assert PROBABILITY_TOLERANCES["fp32"] == 1e-4
    assert (
        PROBABILITY_TOLERANCES["fp32"]
        < PROBABILITY_TOLERANCES["fp16"]
        < PROBABILITY_TOLERANCES["int8"]
        < 0.5
    )
