"""Accuracy without labels, on photos whose labels are known after all."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.runtime.drift.accuracy_estimate import estimate_accuracy


def drawn(photos: int, seed: int, right_less: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(whether each answer is right, its confidence), right less often than confident."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(6, 2, photos).astype(np.float32)
    return rng.random(photos) < confidence - right_less, confidence


def test_the_interval_holds_the_accuracy_that_labels_would_give():
    inside = errors = 0
    for seed in range(300):
        held_out, (right, confidence) = drawn(400, seed), drawn(150, 1000 + seed)
        found = estimate_accuracy(*held_out, confidence)
        inside += found.interval[0] <= right.mean() <= found.interval[1]
        errors += abs(found.value - right.mean())
    assert 0.92 <= inside / 300 <= 0.985
    assert errors / 300 < 0.03


def test_an_overconfident_model_is_corrected_by_the_held_out_photos():
    right, confidence = drawn(4000, 1, right_less=0.15)
    found = estimate_accuracy(*drawn(4000, 0, right_less=0.15), confidence)
    assert found.value == pytest.approx(right.mean(), abs=0.03)
    assert found.value < confidence.mean() - 0.1


def test_less_confident_photos_are_estimated_lower():
    held_out = drawn(400, 0)
    better, worse = (estimate_accuracy(*held_out, held_out[1] * factor) for factor in (1, 0.7))
    assert worse.value < better.value - 0.1 and worse.held_out == better.held_out


def test_shares_stay_between_0_and_1():
    sure = np.ones(30, np.float32)
    found = estimate_accuracy(np.ones(30, bool), sure, sure)
    assert (found.value, found.interval[1]) == (1, 1)
    assert 0.9 < found.interval[0] < 0.96  # thirty photos without a mistake do not promise more
