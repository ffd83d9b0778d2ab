"""The temperature: found where it is known, and moderate for few photos, at any scale of logits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from edgetl.errors import TrainingError
from edgetl.evaluation.metrics import metrics_summary
from edgetl.training.head import temperature as temperature_module
from edgetl.training.head.temperature import (
    LIMITS,
    calibrate,
    fit_temperature,
    log_likelihoods,
)


def drawn(
    photos: int, temperature: float, seed: int = 0, classes: int = 5
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits of a classifier whose probabilities would be exactly right at ``temperature``."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, (photos, classes))
    labels = np.array([rng.choice(classes, p=row) for row in softmax(true, axis=1)])
    return (true * temperature).astype(np.float32), labels


def loss(logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float) -> float:
    return float(
        -log_softmax(logits.astype(np.float64) / temperature, axis=1)[
            np.arange(len(labels)), labels
        ].mean()
    )


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_is_found(temperature: float) -> None:
    assert fit_temperature(*drawn(4000, temperature)) == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize("photos", [2, 5, 20, 200])
@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_it_grows_with_the_logits_whether_photos_are_right_or_not(
    photos: int, scale: float
) -> None:
    logits, labels = drawn(photos, 1.7)
    for given in (labels, logits.argmax(1)):
        limits = (1e-6, 1e6)
        found = fit_temperature(logits, given, limits=limits)
        scaled = fit_temperature(logits * np.float32(scale), given, limits=limits)
        assert scaled == pytest.approx(found * scale, rel=1e-3)


@pytest.mark.parametrize("temperature", [0.4, 3.0])
def test_the_calibration_error_shrinks_on_other_photos(temperature: float) -> None:
    found = fit_temperature(*drawn(500, temperature))
    logits, labels = drawn(2000, temperature, seed=1)
    before, after = (
        metrics_summary(softmax(logits / divisor, axis=1).astype(np.float32), labels)[
            "calibration_error"
        ]
        for divisor in (1.0, found)
    )
    assert after < 0.5 * before


@pytest.mark.parametrize("temperature", [0.4, 3.0])
def test_a_temperature_that_is_surely_better_is_taken(temperature: float) -> None:
    logits, labels = drawn(500, temperature)
    assert calibrate(logits, labels) == fit_temperature(logits, labels)


def test_what_chance_explains_leaves_the_temperature_at_1() -> None:
    """Of logits that need no temperature, few photos nearly always suggest one."""
    samples = [drawn(40, 1.0, seed) for seed in range(40)]
    assert sum(fit_temperature(*sample) != 1.0 for sample in samples) >= 20
    found = [calibrate(*sample) for sample in samples]
    assert sum(temperature != 1.0 for temperature in found) <= 16
    others, labels = drawn(4000, 1.0, seed=99)
    taken, fitted = (
        np.mean([loss(others, labels, temperature) for temperature in temperatures])
        for temperatures in (found, [fit_temperature(*sample) for sample in samples])
    )
    assert loss(others, labels, 1.0) <= taken < fitted


def test_if_every_photo_is_right_confidence_stays_below_what_so_few_can_show() -> None:
    for photos in (3, 30, 300):
        logits = np.zeros((photos, 4), np.float32)
        labels = np.arange(photos) % 4
        logits[np.arange(photos), labels] = 2.0
        confidence = softmax(logits / fit_temperature(logits, labels), axis=1).max(1).mean()
        assert 1 - 1.01 / (photos + 1) < confidence < 1


def test_if_every_photo_is_wrong_it_stays_within_the_limits() -> None:
    logits = np.array([[9.0, 0.0], [8.0, 0.0], [7.0, 0.0]], np.float32)
    assert LIMITS[0] <= fit_temperature(logits, [1, 1, 1]) <= LIMITS[1]


def test_constant_logits_leave_it_at_1() -> None:
    assert fit_temperature(np.zeros((10, 3), np.float32), np.arange(10) % 3) == 1.0


@pytest.mark.parametrize(
    "logits", [np.empty((0, 3), np.float32), np.full((2, 3), np.inf, np.float32)]
)
def test_no_photos_and_infinite_logits_are_errors(logits: NDArray[np.float32]) -> None:
    with pytest.raises(TrainingError):
        fit_temperature(logits, [0] * len(logits))


def test_weights_count_like_copies() -> None:
    logits, labels = drawn(300, 2.0)
    weights = np.where(labels == 0, 3.0, 1.0).astype(np.float32)
    thrice = np.repeat(np.arange(300), weights.astype(int))
    copied = fit_temperature(logits[thrice], labels[thrice])
    assert fit_temperature(logits, labels, weights) == pytest.approx(copied, rel=0.02)
    assert abs(copied - fit_temperature(logits, labels)) > 0.02 * copied


def test_of_very_many_logits_some_decide_and_all_have_a_likelihood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits, labels = drawn(6000, 3.0)
    whole, every = fit_temperature(logits, labels), log_likelihoods(logits, labels, 2.0)
    assert -every.mean() == pytest.approx(loss(logits, labels, 2.0), rel=1e-12)
    monkeypatch.setattr(temperature_module, "_MOST_LOGITS", 10_000)  # 2,000 photos
    some = fit_temperature(logits, labels)
    assert some == fit_temperature(logits, labels) != whole
    assert some == pytest.approx(whole, rel=0.1)
    np.testing.assert_array_equal(log_likelihoods(logits, labels, 2.0), every)
