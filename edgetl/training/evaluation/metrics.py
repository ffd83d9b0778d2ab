"""How good a classifier is on its validation photos. The card, metrics.json and the report all take it from here.

torchmetrics, scikit-learn and scipy.stats are imported where they are used, at a run's end: together they take seconds.
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

CONFIDENCE = 0.95  # of the accuracy's interval
CALIBRATION_BINS = 15
_DRAWS = 20  # of what chance does to the calibration error
_TOP = 5  # "top 5" says something from twice as many classes on
_SMALLEST = float(
    np.finfo(np.float32).tiny
)  # probability: for what float32 rounded to 0 the loss would be infinite

Probabilities = NDArray[np.float32]  # [N, C], rows sum to 1
Targets = NDArray[np.int64]  # [N], 0..C-1


@dataclass(frozen=True)
class ClassMetrics:
    """One class. ``precision`` is None if it was never predicted, ``recall`` and ``f1`` if no photo is of it."""

    label: str
    photos: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class CalibrationCurve:
    """Photos in bins of like confidence, empty bins left out: their mean confidence and their accuracy, float64 [B], and
    their number, int64 [B]."""

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
    """The figures of one validation, as JSON values; all but "photos" and "loss" lie in 0..1.

    probabilities  float32 [N, C], after division by the temperature
    untempered     those at temperature 1, for "calibration_error_before" (default: they are the same)

    accuracy, accuracy_interval (Wilson's, 95 %), photos, loss (mean of -ln p of the right class), macro_f1 and
    balanced_accuracy (mean F1 and mean recall of the classes that have photos), calibration_error (expected, 15 bins,
    l1), calibration_error_before, and top5_accuracy from 10 classes on.
    Raises TrainingError for values that are no probabilities.
    """
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
        multiclass_f1_score,
        multiclass_recall,
    )

    predicted, truth, classes = _checked(probabilities, targets)
    present = (
        truth.bincount(minlength=classes) > 0
    )  # of the others nothing is known, also if they were predicted
    correct = int((probabilities.argmax(1) == targets).sum())
    right = probabilities[np.arange(len(targets)), targets]
    summary = {
        "accuracy": correct / len(targets),
        "accuracy_interval": list(_wilson(correct, len(targets))),
        "photos": len(targets),
        "loss": float(-np.log(np.maximum(right, _SMALLEST), dtype=np.float64).mean()),
        "macro_f1": _plain(
            multiclass_f1_score(predicted, truth, classes, average="none")[present].mean()
        ),
        "balanced_accuracy": _plain(
            multiclass_recall(predicted, truth, classes, average="none")[present].mean()
        ),
        "calibration_error": _calibration_error(predicted, truth, classes),
    }
    before = predicted if untempered is None else _checked(untempered, targets)[0]
    summary["calibration_error_before"] = _calibration_error(before, truth, classes)
    if classes >= 2 * _TOP:
        summary["top5_accuracy"] = _plain(
            multiclass_accuracy(predicted, truth, classes, average="micro", top_k=_TOP)
        )
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
        [_plain(value) for value in metric(predicted, truth, classes, average="none")]
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
    """Numbers of photos [C, C]: row = what it is, column = what was predicted."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    predicted, truth, classes = _checked(probabilities, targets)
    return np.asarray(multiclass_confusion_matrix(predicted, truth, classes).numpy(), np.int64)


def calibration_curve(probabilities: Probabilities, targets: Targets) -> CalibrationCurve:
    """How often the predictions of each confidence are right."""
    from sklearn.calibration import calibration_curve as curve

    correct, sure = probabilities.argmax(1) == targets, probabilities.max(1).clip(0, 1)
    accuracy, confidence = curve(correct, sure, n_bins=CALIBRATION_BINS)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    photos = np.bincount(np.searchsorted(edges, sure))  # as sklearn deals them out
    return CalibrationCurve(confidence, accuracy, photos[photos > 0])


@_counting()
def honest_calibration_error(probabilities: Probabilities) -> float:
    """The calibration error that a model with these confidences would show by chance alone if they were right, 0..1.

    The mean over answers drawn from them. With few photos in a bin, chance is most of what there is to see.
    """
    rng = np.random.default_rng(0)
    best, classes = probabilities.argmax(1), probabilities.shape[1]
    predicted = torch.from_numpy(np.clip(probabilities, 0, 1))
    errors = []
    for _ in range(_DRAWS):
        right = rng.random(len(best)) < probabilities.max(1)
        errors.append(
            _calibration_error(
                predicted, torch.from_numpy(np.where(right, best, (best + 1) % classes)), classes
            )
        )
    return float(np.mean(errors))


def selective_accuracy(
    probabilities: Probabilities, targets: Targets, threshold: float
) -> tuple[float, float | None]:
    """(share of the photos whose confidence is at least ``threshold``, accuracy on these; None if there are none)."""
    answered = probabilities.max(1) >= threshold
    right = probabilities.argmax(1) == targets
    return float(answered.mean()), float(right[answered].mean()) if answered.any() else None


def _checked(
    probabilities: Probabilities, targets: Targets
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """As tensors, and the number of classes."""
    if (
        probabilities.ndim != 2
        or not len(probabilities)
        or targets.shape != probabilities.shape[:1]
    ):
        raise TrainingError(
            f"No metrics of probabilities {list(probabilities.shape)} and targets {list(targets.shape)}."
        )
    if not np.isfinite(probabilities).all() or abs(probabilities.sum(1) - 1).max() > 1e-3:
        raise TrainingError(
            "The network's outputs on the validation photos are not finite.",
            "Train with a smaller learning rate, or with --precision float32.",
        )
    # Clipped, because torchmetrics takes anything outside 0..1 for logits, and a rounding error is enough.
    bounded = torch.from_numpy(np.clip(probabilities, 0, 1))
    return bounded, torch.from_numpy(np.ascontiguousarray(targets)), probabilities.shape[1]


def _calibration_error(predicted: torch.Tensor, truth: torch.Tensor, classes: int) -> float:
    from torchmetrics.functional.classification import multiclass_calibration_error

    bounded = predicted.clamp(0, 1 - 2**-24)  # torchmetrics has a bin of its own for exactly 1
    return _plain(
        multiclass_calibration_error(bounded, truth, classes, n_bins=CALIBRATION_BINS, norm="l1")
    )


def _plain(value: torch.Tensor) -> float:
    """Without the digits that float32 has invented: 0.7437499761581421 is 0.74375."""
    return round(float(value), 7)


def _wilson(correct: int, photos: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(correct, photos).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
