"""How good a classifier is on labelled photos: the figures of metrics.json and of the reports.

numpy alone, so that a device computes the same figures as training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TrainingError
from edgetl.runtime.bundle.share_interval import wilson_interval

CALIBRATION_BINS = 15  # of the calibration error; of a curve, the most
MIN_CALIBRATION_PHOTOS = 200  # of fewer, a calibration curve shows mostly chance
_PHOTOS_PER_POINT = 40  # of a calibration curve: then intervals are at most ± 15 points
_CHANCE_DRAWS = 20  # averaged by ``chance_calibration_error``
_TOP = 5  # top-5 accuracy is reported from twice as many classes on
_MIN_PROBABILITY = float(np.finfo(np.float32).tiny)  # keeps -ln p finite where p was rounded to 0
_DIGITS = 7  # probabilities are float32, so that further ones would mean nothing

Probabilities: TypeAlias = NDArray[np.float32]  # [N, C], rows sum to 1
Targets: TypeAlias = NDArray[np.int64]  # [N], 0..C-1


@dataclass(frozen=True)
class ClassMetrics:
    """One class; precision is None if it was never predicted, recall and f1 if it has no photos."""

    label: str
    photos: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class CalibrationPoint:
    """Photos of similar confidence.

    confidence, accuracy  means, 0..1
    interval              Wilson's 95 % interval of the accuracy
    """

    confidence: float
    accuracy: float
    interval: tuple[float, float]
    photos: int


def metrics_summary(
    probabilities: Probabilities, targets: Targets, *, untempered: Probabilities | None = None
) -> dict[str, Any]:
    """The figures of one validation, as JSON values; all but photos and loss are in 0..1.

    probabilities  float32 [N, C], after division by the temperature
    untempered     float32 [N, C], those at temperature 1 (default: the same)

    accuracy, accuracy_interval   with Wilson's 95 % interval [low, high]
    photos                        how many
    loss                          mean of −ln p of the true class, in nats
    macro_f1, balanced_accuracy   mean F1 and mean recall of the classes that have photos
    calibration_error             expected calibration error: l1, 15 bins of equal width
    calibration_error_before      the same of ``untempered``
    top5_accuracy                 from 10 classes on

    Raises TrainingError for values that are no probabilities.
    """
    matrix = confusion_matrix(probabilities, targets)
    _, recall, f1 = _rates(matrix)
    photos, correct = len(targets), int(np.trace(matrix))
    of_truth = probabilities[np.arange(photos), targets]
    loss = -np.log(np.maximum(of_truth, _MIN_PROBABILITY), dtype=np.float64).mean()
    before = probabilities if untempered is None else untempered
    summary = {
        "accuracy": correct / photos,
        "accuracy_interval": list(wilson_interval(correct, photos)),
        "photos": photos,
        "loss": float(loss) + 0.0,  # not -0.0, of answers that are all sure
        "macro_f1": _rounded(np.nanmean(f1)),
        "balanced_accuracy": _rounded(np.nanmean(recall)),
        "calibration_error": _rounded(_calibration_error(*_hits(probabilities, targets))),
        "calibration_error_before": _rounded(_calibration_error(*_hits(before, targets))),
    }
    if probabilities.shape[1] >= 2 * _TOP:
        better = (probabilities > of_truth[:, None]).sum(1)
        summary["top5_accuracy"] = _rounded((better < _TOP).mean())
    return summary


def class_metrics(
    probabilities: Probabilities, targets: Targets, labels: Sequence[str]
) -> list[ClassMetrics]:
    """Precision, recall, F1 and number of photos of each class, in the order of ``labels``."""
    matrix = confusion_matrix(probabilities, targets)
    rates = ([None if np.isnan(x) else _rounded(x) for x in rate] for rate in _rates(matrix))
    return [
        ClassMetrics(*values) for values in zip(labels, matrix.sum(1).tolist(), *rates, strict=True)
    ]


def confusion_matrix(probabilities: Probabilities, targets: Targets) -> NDArray[np.int64]:
    """Numbers of photos, int64 [C, C]: row = true class, column = predicted class."""
    _require_probabilities(probabilities, targets)
    classes = probabilities.shape[1]
    cells = np.bincount(targets * classes + probabilities.argmax(1), minlength=classes**2)
    return cells.astype(np.int64).reshape(classes, classes)


def calibration_curve(probabilities: Probabilities, targets: Targets) -> list[CalibrationPoint]:
    """How often predictions of similar confidence are right (a reliability diagram).

    The photos, sorted by confidence, in 5 to 15 parts of equal size. Of fewer than 200 photos there
    is no point: their curve would be a zigzag by chance.
    """
    photos = len(targets)
    if photos < MIN_CALIBRATION_PHOTOS:
        return []
    confidence, correct = _hits(probabilities, targets)
    order = np.argsort(confidence, kind="stable")
    points = min(CALIBRATION_BINS, photos // _PHOTOS_PER_POINT)
    return [
        CalibrationPoint(
            confidence=float(confidence[part].mean()),
            accuracy=float(correct[part].mean()),
            interval=wilson_interval(int(correct[part].sum()), len(part)),
            photos=len(part),
        )
        for part in np.array_split(order, points)
    ]


def chance_calibration_error(probabilities: Probabilities) -> float:
    """The calibration error that a perfectly calibrated model would have by chance, 0..1.

    The mean over outcomes drawn from these confidences. With few photos in a bin, most of a
    measured error is chance.
    """
    rng = np.random.default_rng(0)
    confidence = probabilities.max(1).astype(np.float64)
    draws = (rng.random(len(confidence)) < confidence for _ in range(_CHANCE_DRAWS))
    return float(np.mean([_calibration_error(confidence, correct) for correct in draws]))


def _require_probabilities(probabilities: Probabilities, targets: Targets) -> None:
    shape = probabilities.shape
    if len(shape) != 2 or not shape[0] or targets.shape != shape[:1]:
        raise TrainingError(
            f"No metrics of probabilities {list(shape)} and targets {list(targets.shape)}."
        )
    if not np.isfinite(probabilities).all() or abs(probabilities.sum(1) - 1).max() > 1e-3:
        raise TrainingError(
            "The network's outputs on the validation photos are not finite.",
            "Train with a smaller learning rate, or with --precision float32.",
        )


def _rates(matrix: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """Precision, recall and F1 of each class, [C] each; NaN where ``ClassMetrics`` has None."""
    hits, photos, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore"):
        f1 = np.where(photos > 0, 2 * hits / (photos + predicted), np.nan)
        return hits / predicted, hits / photos, f1


def _hits(
    probabilities: Probabilities, targets: Targets
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The confidence of each prediction, 0..1, and whether it is right, [N] each."""
    confidence = probabilities.max(1).clip(0, 1).astype(np.float64)
    return confidence, probabilities.argmax(1) == targets


def _calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> np.float64:
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - correct)
    return np.float64(abs(gaps).sum() / len(confidence))


def _rounded(value: np.floating[Any]) -> float:
    return round(float(value), _DIGITS)
