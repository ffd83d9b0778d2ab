"""Answers above the threshold are right as often as was asked, or there is none."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.random_answers import random_answers

from edgetl.evaluation.exact_tests import clopper_pearson
from edgetl.evaluation.labelled_answers import LabelledAnswers
from edgetl.evaluation.sure_threshold import SureThreshold, find_threshold, photos_needed


def threshold_of(confidences: np.ndarray, is_right: np.ndarray, precision: float) -> SureThreshold:
    probabilities = np.stack([confidences, 1 - confidences], 1) - np.float32([0, 1])
    answers = LabelledAnswers(("a", "b"), probabilities, np.where(is_right, 0, 1))
    return find_threshold(answers, precision)


@pytest.mark.parametrize(
    ("precision", "mistakes", "photos"),
    [(0.95, 0, 59), (0.99, 0, 299), (0.99, 1, 473), (0.5, 0, 5)],
)
def test_how_many_answers_it_takes(precision: float, mistakes: int, photos: int) -> None:
    assert photos_needed(precision, mistakes) == photos
    right = photos - mistakes
    # Clopper and Pearson's bound of 95 % on one side is that of a 90 % interval.
    assert clopper_pearson(right, photos, 0.9)[0] >= precision
    assert clopper_pearson(right - 1, photos - 1, 0.9)[0] < precision


def test_all_answers_are_sure_if_enough_are_right() -> None:
    confidences = np.linspace(0.3, 1, 299, dtype=np.float32)
    found = threshold_of(confidences, np.ones(299, bool), 0.99)
    assert (found.threshold, found.sure, found.right) == (pytest.approx(0.3), 299, 299)


def test_one_answer_too_few_and_nothing_can_be_shown() -> None:
    found = threshold_of(np.full(298, 0.9, np.float32), np.ones(298, bool), 0.99)
    assert (found.threshold, found.sure, found.needed) == (None, 0, 299)
    assert threshold_of(np.empty(0, np.float32), np.empty(0, bool), 0.9).threshold is None


def test_the_threshold_leaves_out_the_mistakes() -> None:
    confidences = np.linspace(1, 0, 1000, dtype=np.float32)
    is_right = np.arange(1000) < 700  # all wrong below a confidence of 0.3
    found = threshold_of(confidences, is_right, 0.95)
    assert found.threshold is not None
    assert 0.27 < found.threshold < 0.3
    assert found.right / found.sure > 0.95


def test_equal_confidences_are_sure_together() -> None:
    confidences = np.repeat(np.float32([0.9, 0.6]), 100)
    is_right = np.ones(200, bool)
    is_right[130:] = False
    found = threshold_of(confidences, is_right, 0.9)
    assert (found.threshold, found.sure) == (pytest.approx(0.9), 100)


def test_a_threshold_is_wrong_in_one_of_twenty_cases_at_most() -> None:
    """Calibrated answers: those above a threshold are right as often as their mean confidence."""
    world = random_answers(50_000, seed=9)
    wrong = found = 0
    for seed in range(150):
        answers = random_answers(300, seed=10_000 + seed)
        threshold = find_threshold(answers, 0.85).threshold
        if threshold is not None:
            found += 1
            wrong += world.confidences[world.confidences >= threshold].mean() < 0.85
    assert found > 100
    assert wrong <= 0.05 * 150 + 2 * (0.05 * 0.95 * 150) ** 0.5
