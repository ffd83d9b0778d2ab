"""Validation metrics, against scikit-learn and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as reference

from edgetl.errors import TrainingError
from edgetl.evaluation.metrics import (
    ClassMetrics,
    calibration_curve,
    chance_calibration_error,
    class_metrics,
    confusion_matrix,
    metrics_summary,
)


def predictions(photos: int = 300, classes: int = 4, seed: int = 0, sharpness: float = 2.0):
    """Probabilities of a classifier that is often right, and the true classes."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, photos)
    logits = rng.normal(size=(photos, classes)) + 1.5 * np.eye(classes)[targets]
    powers = np.exp(sharpness * logits)
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32), targets


@pytest.mark.parametrize("classes", [2, 4, 25])
def test_metrics_equal_those_of_scikit_learn(classes):
    probabilities, targets = predictions(classes=classes)
    predicted = probabilities.argmax(1)
    summary = metrics_summary(probabilities, targets)
    assert summary["accuracy"] == reference.accuracy_score(targets, predicted)
    assert summary["macro_f1"] == pytest.approx(
        reference.f1_score(targets, predicted, average="macro"), abs=1e-6
    )
    assert summary["balanced_accuracy"] == pytest.approx(
        reference.balanced_accuracy_score(targets, predicted), abs=1e-6
    )
    assert summary["loss"] == pytest.approx(
        reference.log_loss(targets, probabilities, labels=range(classes)), rel=1e-5
    )
    assert (
        confusion_matrix(probabilities, targets) == reference.confusion_matrix(targets, predicted)
    ).all()
    if classes >= 10:
        top5 = reference.top_k_accuracy_score(targets, probabilities, k=5, labels=range(classes))
        assert summary["top5_accuracy"] == pytest.approx(top5)
    else:
        assert "top5_accuracy" not in summary
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize("kept", [[0, 1], [2]])
def test_a_class_without_photos_does_not_count_even_if_it_is_predicted(kept):
    probabilities, targets = predictions(sharpness=0.5)
    probabilities, targets = probabilities[np.isin(targets, kept)], targets[np.isin(targets, kept)]
    predicted = probabilities.argmax(1)
    assert set(predicted) > set(kept)
    summary = metrics_summary(probabilities, targets)
    recall = reference.recall_score(targets, predicted, labels=kept, average="macro")
    assert summary["balanced_accuracy"] == pytest.approx(recall, abs=1e-6)
    assert summary["macro_f1"] == pytest.approx(
        reference.f1_score(targets, predicted, labels=kept, average="macro"), abs=1e-6
    )


def test_class_metrics_equal_those_of_scikit_learn():
    probabilities, targets = predictions()
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        targets, probabilities.argmax(1)
    )
    found = class_metrics(probabilities, targets, ["a", "b", "c", "d"])
    assert [item.label for item in found] == ["a", "b", "c", "d"]
    assert [item.photos for item in found] == support.tolist()
    np.testing.assert_allclose(
        [[i.precision, i.recall, i.f1] for i in found],
        np.stack([precision, recall, f1], 1),
        atol=1e-6,
    )


def test_undefined_metrics_of_a_class_are_none():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]], np.float32)
    found = class_metrics(probabilities, np.array([0, 1]), ["a", "b", "c"])
    assert found[1] == ClassMetrics("b", photos=1, precision=None, recall=0.0, f1=0.0)
    assert found[2] == ClassMetrics("c", photos=0, precision=None, recall=None, f1=None)


def test_wilson_interval_of_a_textbook_case():
    probabilities = np.tile(np.array([[0.7, 0.3]], np.float32), (10, 1))
    summary = metrics_summary(probabilities, np.array([0] * 9 + [1]))
    assert summary["accuracy_interval"] == pytest.approx([0.5958, 0.9821], abs=1e-3)
    assert metrics_summary(probabilities, np.zeros(10, np.int64))["accuracy_interval"][1] == 1.0


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1]] * 10, np.float32)
    targets = np.array([0] * 6 + [1] * 4)  # 90 % sure, 60 % right
    assert metrics_summary(probabilities, targets)["calibration_error"] == pytest.approx(
        0.3, abs=1e-6
    )


@pytest.mark.parametrize(("photos", "points"), [(1, 0), (199, 0), (200, 5), (399, 9), (9000, 15)])
def test_a_calibration_curve_has_no_more_points_than_the_photos_allow(photos, points):
    probabilities, targets = predictions(photos)
    curve = calibration_curve(probabilities, targets)
    assert len(curve) == points
    assert sum(point.photos for point in curve) == (photos if points else 0)
    assert all(point.photos >= 40 for point in curve)


def test_a_point_of_a_calibration_curve_by_hand():
    sure = np.repeat(np.array([0.95, 0.6, 0.8, 0.7, 0.9], np.float32), 40)
    targets = np.tile(np.arange(40) >= 30, 5).astype(np.int64)  # 30 of 40 are right
    curve = calibration_curve(np.stack([sure, 1 - sure], 1), targets)
    assert [point.confidence for point in curve] == pytest.approx([0.6, 0.7, 0.8, 0.9, 0.95])
    assert {point.accuracy for point in curve} == {0.75}
    expected = binomtest(30, 40).proportion_ci(0.95, method="wilson")
    assert curve[0].interval == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("correct", "photos"), [(0, 1), (1, 1), (0, 7), (5, 9), (213, 240)])
def test_the_interval_is_that_of_scipy(correct, photos):
    probabilities = np.tile(np.array([[0.7, 0.3]], np.float32), (photos, 1))
    targets = (np.arange(photos) >= correct).astype(np.int64)
    low, high = metrics_summary(probabilities, targets)["accuracy_interval"]
    expected = binomtest(correct, photos).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_predictions_of_confidence_one_are_in_the_last_bin():
    probabilities = np.array([[1.0, 0.0]] * 100 + [[0.95, 0.05]] * 100, np.float32)
    targets = np.array([0] * 95 + [1] * 5 + [0] * 100)  # together 97.5 % sure and right
    assert metrics_summary(probabilities, targets)["calibration_error"] == pytest.approx(
        0, abs=1e-5
    )


def test_metrics_have_no_more_digits_than_float32():
    probabilities = np.eye(4, dtype=np.float32)[np.arange(160) % 4]
    targets = np.where(np.arange(160) < 41, (np.arange(160) + 1) % 4, np.arange(160) % 4)
    assert metrics_summary(probabilities, targets)["accuracy"] == 0.74375
    assert all(
        str(figure.recall) == f"{figure.recall:.7g}"
        for figure in class_metrics(probabilities, targets, "abcd")
    )


def test_the_error_before_temperature_scaling_is_that_of_the_raw_probabilities():
    raw, targets = predictions(sharpness=4.0)
    powers = np.exp(np.log(raw.astype(np.float64)) / 2.5)
    tempered = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    summary = metrics_summary(tempered, targets, untempered=raw)
    assert summary["calibration_error_before"] == metrics_summary(raw, targets)["calibration_error"]
    assert summary["calibration_error"] != pytest.approx(
        summary["calibration_error_before"], abs=1e-2
    )


def test_certain_and_wrong_has_a_finite_loss():
    probabilities = np.array([[1.0, 0.0], [1.0000001, 0.0]], np.float32)
    summary = metrics_summary(probabilities, np.array([1, 0]))
    assert np.isfinite(summary["loss"])
    assert summary["calibration_error"] == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2.0])
def test_values_that_are_no_probabilities_are_refused(bad):
    probabilities, targets = predictions()
    probabilities[3, 1] = bad
    with pytest.raises(TrainingError, match="not finite"):
        metrics_summary(probabilities, targets)


def test_metrics_of_no_photos_are_refused():
    with pytest.raises(TrainingError, match="No metrics"):
        metrics_summary(np.empty((0, 2), np.float32), np.empty(0, np.int64))


@pytest.mark.parametrize(("photos", "expected"), [(60, 0.119), (2000, 0.022)])
def test_the_calibration_error_by_chance_falls_with_the_number_of_photos(photos, expected):
    probabilities, _ = predictions(photos=photos, classes=4)
    chance = chance_calibration_error(probabilities)
    assert chance == pytest.approx(expected, abs=0.02)
    assert chance == chance_calibration_error(probabilities)
    rng = np.random.default_rng(5)
    truth = np.array(
        [rng.choice(4, p=row.astype(float) / row.astype(float).sum()) for row in probabilities]
    )
    assert metrics_summary(probabilities, truth)["calibration_error"] == pytest.approx(
        chance, abs=0.06
    )


def test_thousands_of_classes_are_counted():
    many = 3000
    probabilities = np.eye(many, dtype=np.float32)
    assert metrics_summary(probabilities, np.arange(many))["macro_f1"] == 1.0
    assert np.trace(confusion_matrix(probabilities, np.arange(many))) == many
