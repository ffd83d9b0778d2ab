"""Validation metrics, against scikit-learn and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from edgetl.errors import TrainingError
from edgetl.training.evaluation.metrics import (
    ClassMetrics,
    calibration_curve,
    chance_calibration_error,
    class_metrics,
    confusion_matrix,
    metrics_summary,
    selective_accuracy,
)
from edgetl.training.torch_env.torch_flags import reproducible


def answers(photos: int = 300, classes: int = 4, seed: int = 0, sharpness: float = 2.0):
    """Probabilities of a classifier that is often right, and the truth."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, photos)
    logits = rng.normal(size=(photos, classes)) + 1.5 * np.eye(classes)[targets]
    powers = np.exp(sharpness * logits)
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32), targets


@pytest.mark.parametrize("classes", [2, 4, 25])
def test_figures_are_those_of_scikit_learn(classes):
    probabilities, targets = answers(classes=classes)
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
    probabilities, targets = answers(sharpness=0.5)
    probabilities, targets = probabilities[np.isin(targets, kept)], targets[np.isin(targets, kept)]
    predicted = probabilities.argmax(1)
    assert set(predicted) > set(kept)
    summary = metrics_summary(probabilities, targets)
    recall = reference.recall_score(targets, predicted, labels=kept, average="macro")
    assert summary["balanced_accuracy"] == pytest.approx(recall, abs=1e-6)
    assert summary["macro_f1"] == pytest.approx(
        reference.f1_score(targets, predicted, labels=kept, average="macro"), abs=1e-6
    )


def test_each_class_is_that_of_scikit_learn():
    probabilities, targets = answers()
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


def test_what_can_not_be_known_of_a_class_is_none():
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
    curve = calibration_curve(probabilities, targets)
    assert curve.confidence == pytest.approx([0.9])
    assert curve.accuracy == pytest.approx([0.6])


def test_a_calibration_curve_counts_the_photos_of_its_bins():
    sure = np.array([0.54] * 3 + [0.59] * 2 + [0.95] * 7, np.float32)  # bins are a fifteenth wide
    curve = calibration_curve(np.stack([sure, 1 - sure], 1), np.zeros(12, np.int64))
    assert curve.photos.tolist() == [5, 7]
    assert curve.confidence == pytest.approx([0.56, 0.95])


def test_answers_of_confidence_one_are_in_the_last_bin():
    probabilities = np.array([[1.0, 0.0]] * 100 + [[0.95, 0.05]] * 100, np.float32)
    targets = np.array([0] * 95 + [1] * 5 + [0] * 100)  # together 97.5 % sure and right
    assert metrics_summary(probabilities, targets)["calibration_error"] == pytest.approx(
        0, abs=1e-5
    )


def test_figures_have_no_digits_that_nobody_computed():
    probabilities = np.eye(4, dtype=np.float32)[np.arange(160) % 4]
    targets = np.where(np.arange(160) < 41, (np.arange(160) + 1) % 4, np.arange(160) % 4)
    assert metrics_summary(probabilities, targets)["accuracy"] == 0.74375
    assert all(
        str(figure.recall) == f"{figure.recall:.7g}"
        for figure in class_metrics(probabilities, targets, "abcd")
    )


def test_accuracy_of_the_confident_answers():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55]], np.float32)
    targets = np.array([0, 1, 1, 1])
    assert selective_accuracy(probabilities, targets, 0.0) == (1.0, 0.75)
    assert selective_accuracy(probabilities, targets, 0.7) == (0.5, 1.0)
    assert selective_accuracy(probabilities, targets, 0.95) == (0.0, None)


def test_the_error_before_the_temperature_is_that_of_the_raw_probabilities():
    raw, targets = answers(sharpness=4.0)
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
    probabilities, targets = answers()
    probabilities[3, 1] = bad
    with pytest.raises(TrainingError, match="not finite"):
        metrics_summary(probabilities, targets)


def test_nothing_to_judge_is_refused():
    with pytest.raises(TrainingError, match="No metrics"):
        metrics_summary(np.empty((0, 2), np.float32), np.empty(0, np.int64))


@pytest.mark.parametrize(("photos", "expected"), [(60, 0.119), (2000, 0.022)])
def test_chance_alone_makes_a_calibration_error_that_falls_with_the_photos(photos, expected):
    probabilities, _ = answers(photos=photos, classes=4)
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


def test_many_classes_are_counted_without_a_table_of_photos_by_cells():
    many = 3000
    probabilities = np.eye(many, dtype=np.float32)  # a table would be of 216 GB
    with reproducible(torch.device("cpu")):
        assert metrics_summary(probabilities, np.arange(many))["macro_f1"] == 1.0
        assert np.trace(confusion_matrix(probabilities, np.arange(many))) == many
        assert torch.are_deterministic_algorithms_enabled()
