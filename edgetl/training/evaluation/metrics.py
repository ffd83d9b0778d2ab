"""How good a classifier is on its validation photos: the figures of metrics.json and the report.

torchmetrics, scikit-learn and scipy.stats are imported where they are used, at the end of a run:
together they take seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgetl.errors import TrainingError
from edgetl.training.torch_env.torch_flags import deterministic_algorithms

CONFIDENCE = 0.95  # of the interval of the accuracy
CALIBRATION_BINS = 15
_CHANCE_DRAWS = 20  # averaged by ``chance_calibration_error``
_TOP = 5  # top-5 accuracy is reported from twice as many classes on
_MIN_PROBABILITY = float(np.finfo(np.float32).tiny)  # keeps -ln p finite where p was rounded to 0

Probabilities = NDArray[np.float32]  # [N, C], rows sum to 1
Targets = NDArray[np.int64]  # [N], 0..C-1


@dataclass(frozen=True)
class ClassMetrics:
    """One class; precision is None if it was never predicted, recall and f1 if it has no photos."""

    label: str
    photos: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class CalibrationCurve:
    """Photos in bins of similar confidence, without empty bins.

    confidence  float64 [B], mean of each bin, 0..1
    accuracy    float64 [B], of each bin, 0..1
    photos      int64 [B], in each bin
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    photos: NDArray[np.int64]


# Where torch is asked to be deterministic, torchmetrics counts in a table of photos × classes²: 8 GB
# for a thousand photos of a thousand classes. Integers have the same sum in any order.
_counting = partial(deterministic_algorithms, False)


@_counting()
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
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
        multiclass_f1_score,
        multiclass_recall,
    )

    predicted, truth, classes = _checked(probabilities, targets)
    # Classes without photos don't count, even if they were predicted.
    present = truth.bincount(minlength=classes) > 0
    f1 = multiclass_f1_score(predicted, truth, classes, average="none")
    recall = multiclass_recall(predicted, truth, classes, average="none")
    correct = int((probabilities.argmax(1) == targets).sum())
    of_truth = np.maximum(probabilities[np.arange(len(targets)), targets], _MIN_PROBABILITY)
    summary = {
        "accuracy": correct / len(targets),
        "accuracy_interval": list(_wilson(correct, len(targets))),
        "photos": len(targets),
        "loss": float(-np.log(of_truth, dtype=np.float64).mean()),
        "macro_f1": _rounded(f1[present].mean()),
        "balanced_accuracy": _rounded(recall[present].mean()),
        "calibration_error": _calibration_error(predicted, truth, classes),
    }
    before = predicted if untempered is None else _checked(untempered, targets)[0]
    summary["calibration_error_before"] = _calibration_error(before, truth, classes)
    if classes >= 2 * _TOP:
        top5 = multiclass_accuracy(predicted, truth, classes, average="micro", top_k=_TOP)
        summary["top5_accuracy"] = _rounded(top5)
    return summary


@_counting()
def class_metrics(
    probabilities: Probabilities, targets: Targets, labels: Sequence[str]
) -> list[ClassMetrics]:
    """Precision, recall, F1 and number of photos of each class, in the order of ``labels``."""
    from torchmetrics.functional.classification import (
        multiclass_f1_score,
        multiclass_precision,
        multiclass_recall,
    )

    predicted, truth, classes = _checked(probabilities, targets)
    precision, recall, f1 = (
        [_rounded(value) for value in metric(predicted, truth, classes, average="none")]
        for metric in (multiclass_precision, multiclass_recall, multiclass_f1_score)
    )
    matrix = confusion_matrix(probabilities, targets)
    return [
        ClassMetrics(
            label,
            photos=int(matrix[index].sum()),
            precision=precision[index] if matrix[:, index].any() else None,
            recall=recall[index] if matrix[index].any() else None,
            f1=f1[index] if matrix[index].any() else None,
        )
        for index, label in enumerate(labels)
    ]


@_counting()
def confusion_matrix(probabilities: Probabilities, targets: Targets) -> NDArray[np.int64]:
    """Numbers of photos, int64 [C, C]: row = true class, column = predicted class."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    predicted, truth, classes = _checked(probabilities, targets)
    return np.asarray(multiclass_confusion_matrix(predicted, truth, classes).numpy(), np.int64)


def calibration_curve(probabilities: Probabilities, targets: Targets) -> CalibrationCurve:
    """How often predictions of similar confidence are right (a reliability diagram)."""
    from sklearn.calibration import calibration_curve as curve

    correct, confidence = probabilities.argmax(1) == targets, probabilities.max(1).clip(0, 1)
    accuracy, mean_confidence = curve(correct, confidence, n_bins=CALIBRATION_BINS)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    photos = np.bincount(np.searchsorted(edges, confidence))  # the bins that sklearn uses
    return CalibrationCurve(mean_confidence, accuracy, photos[photos > 0])


@_counting()
def chance_calibration_error(probabilities: Probabilities) -> float:
    """The calibration error that a perfectly calibrated model would have by chance, 0..1.

    The mean over outcomes drawn from these confidences. With few photos in a bin, most of a
    measured error is chance.
    """
    rng = np.random.default_rng(0)
    best, classes = probabilities.argmax(1), probabilities.shape[1]
    predicted = torch.from_numpy(np.clip(probabilities, 0, 1))
    errors = []
    for _ in range(_CHANCE_DRAWS):
        correct = rng.random(len(best)) < probabilities.max(1)
        truth = torch.from_numpy(np.where(correct, best, (best + 1) % classes))
        errors.append(_calibration_error(predicted, truth, classes))
    return float(np.mean(errors))


def selective_accuracy(
    probabilities: Probabilities, targets: Targets, threshold: float
) -> tuple[float, float | None]:
    """Coverage and accuracy if predictions below a confidence of ``threshold`` are rejected.

    → (share of the photos that are left, accuracy on these; None if there are none)
    """
    accepted = probabilities.max(1) >= threshold
    correct = probabilities.argmax(1) == targets
    return float(accepted.mean()), float(correct[accepted].mean()) if accepted.any() else None


def _checked(
    probabilities: Probabilities, targets: Targets
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """(probabilities clipped to 0..1, targets, number of classes). Raises TrainingError."""
    if (
        probabilities.ndim != 2
        or not len(probabilities)
        or targets.shape != probabilities.shape[:1]
    ):
        raise TrainingError(
            f"No metrics of probabilities {list(probabilities.shape)} "
            f"and targets {list(targets.shape)}."
        )
    if not np.isfinite(probabilities).all() or abs(probabilities.sum(1) - 1).max() > 1e-3:
        raise TrainingError(
            "The network's outputs on the validation photos are not finite.",
            "Train with a smaller learning rate, or with --precision float32.",
        )
    # torchmetrics takes values outside 0..1 for logits, and a rounding error is enough.
    bounded = torch.from_numpy(np.clip(probabilities, 0, 1))
    return bounded, torch.from_numpy(np.ascontiguousarray(targets)), probabilities.shape[1]


def _calibration_error(predicted: torch.Tensor, truth: torch.Tensor, classes: int) -> float:
    from torchmetrics.functional.classification import multiclass_calibration_error

    bounded = predicted.clamp(0, 1 - 2**-24)  # torchmetrics has an extra bin for exactly 1
    return _rounded(
        multiclass_calibration_error(bounded, truth, classes, n_bins=CALIBRATION_BINS, norm="l1")
    )


def _rounded(value: torch.Tensor) -> float:
    """Without the digits that float32 does not have: 0.7437499761581421 is 0.74375."""
    return round(float(value), 7)


def _wilson(correct: int, photos: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(correct, photos).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
