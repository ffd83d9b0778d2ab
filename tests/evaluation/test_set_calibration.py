"""Prediction sets hold the right label as often as they say, and are as small as they can be."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.random_answers import random_answers
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin

from edgetl.evaluation.labelled_answers import LabelledAnswers
from edgetl.evaluation.set_calibration import LEVELS, MIN_CLASS_PHOTOS, calibrate_sets
from edgetl.runtime.bundle.prediction_sets import PredictionSets, probability_ahead


class Known(ClassifierMixin, BaseEstimator):
    """A classifier for MAPIE whose inputs are its probabilities."""

    def __init__(self, classes: int = 2) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)

    def fit(self, inputs: np.ndarray, targets: np.ndarray) -> Known:
        return self

    def predict_proba(self, inputs: np.ndarray) -> np.ndarray:
        return inputs

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return inputs.argmax(1)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def mapie_sets(
    known: LabelledAnswers, new: LabelledAnswers, levels: list[float], score: str, **options: object
) -> np.ndarray:
    """bool [photos, classes, levels]"""
    from mapie.classification import SplitConformalClassifier

    classifier = SplitConformalClassifier(
        Known(len(known.labels)), levels, score, prefit=True, random_state=0
    )
    as_double = [
        answers.probabilities.astype(np.float64) / answers.probabilities.sum(1, keepdims=True)
        for answers in (known, new)
    ]
    classifier.conformalize(as_double[0], known.targets)
    return classifier.predict_set(as_double[1], conformity_score_params=options)[1]


def members(
    sets: PredictionSets, answers: LabelledAnswers, level: float, **how: bool
) -> np.ndarray:
    return sets.members(answers.probabilities, tuple(answers.labels), level, **how)


def covered(sets: np.ndarray, answers: LabelledAnswers) -> np.ndarray:
    return sets[np.arange(len(answers.targets)), answers.targets]


def test_with_two_classes_they_are_mapies_where_the_model_alone_is_not_right_enough() -> None:
    known, new = (random_answers(500, classes=2, sharpness=1.5, seed=seed) for seed in (1, 2))
    assert known.is_right.mean() < 0.88
    levels = [0.9, 0.95, 0.99]
    expected = mapie_sets(known, new, levels, "lac")
    found = np.stack([members(calibrate_sets(known), new, level) for level in levels], axis=2)
    np.testing.assert_array_equal(found, expected)
    assert 0 < expected.mean() < 1


@pytest.mark.parametrize("sharpness", [0.5, 1.5, 4.0])
def test_they_cover_and_are_no_larger_than_mapies_adaptive_ones(sharpness: float) -> None:
    known, new = (
        random_answers(1000, classes=8, sharpness=sharpness, seed=seed) for seed in (3, 4)
    )
    levels = [0.9, 0.95]
    plain = mapie_sets(known, new, levels, "aps", include_last_label="randomized")
    for place, level in enumerate(levels):
        found = members(calibrate_sets(known), new, level)
        assert found.sum(1).mean() <= plain[..., place].sum(1).mean() * 1.01
        # Twice a thousand photos: those that the limit is from, and those that it is tried on.
        error = (level * (1 - level) * (1 / 1000 + 1 / 1000)) ** 0.5
        assert covered(found, new).mean() >= level - 2.5 * error
        if new.is_right.mean() < level:
            assert covered(found, new).mean() <= level + 2.5 * error


def test_coverage_is_exact_over_many_draws() -> None:
    shares = []
    for seed in range(200):
        known, new = (random_answers(60, sharpness=1.5, seed=at) for at in (seed, 1000 + seed))
        shares.append(covered(members(calibrate_sets(known), new, 0.9), new).mean())
    # ⌈61 · 0.9⌉ / 61 is what a limit from 60 photos gives.
    assert np.mean(shares) == pytest.approx(55 / 61, abs=3 * np.std(shares) / 200**0.5)


def test_sets_by_class_cover_each_class() -> None:
    known, new = (random_answers(4000, classes=3, seed=seed) for seed in (5, 6))
    # The first class looks like another one to the model.
    for answers in (known, new):
        shifted = answers.targets == 0
        answers.probabilities[shifted] = answers.probabilities[shifted][:, [1, 0, 2]]
    sets = calibrate_sets(known)
    for index in range(3):
        own = new.targets == index
        low, high = stats.binom.interval(0.999, own.sum(), 0.9)
        found = covered(members(sets, new, 0.9, by_class=True), new)[own].sum()
        assert low - 30 <= found <= high + 30
    first = new.targets == 0
    assert covered(members(sets, new, 0.9), new)[first].mean() < 0.85


def test_classes_of_few_photos_share_limits() -> None:
    answers = random_answers(400, classes=4, seed=7)
    rare = np.flatnonzero(answers.targets == 3)[MIN_CLASS_PHOTOS - 1 :]
    kept = np.setdiff1d(np.arange(400), rare)
    some = LabelledAnswers(answers.labels, answers.probabilities[kept], answers.targets[kept])
    sets = calibrate_sets(some)
    assert set(sets.class_limits) == {"class 0", "class 1", "class 2"}
    own = some.targets == 3
    alone = LabelledAnswers(answers.labels, some.probabilities[own], some.targets[own])
    assert sets.other_limits[0] == calibrate_sets(alone).limits[0]
    # It takes 99 photos to say anything about 99 %.
    few = np.bincount(some.targets)[some.targets] < 99
    alone = LabelledAnswers(answers.labels, some.probabilities[few], some.targets[few])
    found = calibrate_sets(alone)
    assert sets.other_limits[sets.levels.index(0.99)] == found.limits[found.levels.index(0.99)]
    assert few.sum() > own.sum()


@pytest.mark.parametrize(
    ("photos", "highest"), [(1, 0.5), (9, 0.9), (18, 0.925), (19, 0.95), (99, 0.99), (999, 0.999)]
)
def test_the_levels_are_those_that_the_photos_suffice_for(photos: int, highest: float) -> None:
    sets = calibrate_sets(random_answers(photos))
    assert sets.levels == tuple(level for level in LEVELS if level <= highest)
    assert sets.photos == photos


def test_above_the_highest_level_no_label_is_ruled_out() -> None:
    new = random_answers(5, seed=1)
    sets = calibrate_sets(random_answers(30, sharpness=9.0))
    assert members(sets, new, 0.97).all()
    assert not members(sets, new, 0.95).all()
    between, next_higher = (members(sets, new, level) for level in (0.91, 0.925))
    np.testing.assert_array_equal(between, next_higher)


def test_the_most_probable_label_is_always_in_the_set() -> None:
    right = np.array([[0.2, 0.5, 0.3]] * 40, np.float32)
    sets = calibrate_sets(LabelledAnswers(("a", "b", "c"), right, np.full(40, 1)))
    assert set(sets.limits) == {0.0}
    tie = np.array([[0.4, 0.4, 0.2]], np.float32)
    assert sets.members(tie, ("a", "b", "c"), 0.5).tolist() == [[True, False, False]]


def test_probability_ahead_of_a_label_is_that_of_more_probable_ones() -> None:
    rows = np.array([[0.25, 0.5, 0.125, 0.125], [1, 0, 0, 0]], np.float32)
    expected = [[0.5, 0, 0.75, 0.875], [0, 1, 1, 1]]
    assert probability_ahead(rows).tolist() == expected
