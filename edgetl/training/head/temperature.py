"""Temperature scaling: of the predictions made with 80 % confidence, about 80 % should be right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from edgetl.errors import TrainingError

LIMITS = (0.05, 20.0)
"""Smallest and largest temperature."""

_STANDARD_ERRORS = 1.0  # by which a temperature must lower the log loss to be worth taking


def calibrate(logits: NDArray[np.float32], labels: Sequence[int] | NDArray[np.int64]) -> float:
    """The fitted temperature, if it lowers the log loss by more than one standard error; else 1.

    A difference that chance explains would make other photos' probabilities worse as often as
    better. Arguments and errors are those of ``fit_temperature``.
    """
    temperature = fit_temperature(logits, labels)
    rows = np.arange(len(labels))
    before, after = (
        -log_softmax(np.asarray(logits, np.float64) / divisor, axis=1)[rows, np.asarray(labels)]
        for divisor in (1.0, temperature)
    )
    lowered = before - after
    error = lowered.std() / np.sqrt(len(lowered))
    return temperature if lowered.mean() > _STANDARD_ERRORS * error else 1.0


def fit_temperature(
    logits: NDArray[np.float32],
    labels: Sequence[int] | NDArray[np.int64],
    weights: NDArray[np.float32] | None = None,
    limits: tuple[float, float] = LIMITS,
) -> float:
    """The temperature, within ``limits``, that minimises the log loss of softmax(logits / T).

    logits   float [N, classes] of photos that were not trained on
    labels   N integers in 0..classes-1
    weights  float [N], how much each photo counts (default: all the same)

    If every photo is right, more confidence always lowers the loss. So one more photo is added of
    which nothing is known (all classes are equally likely): the fewer photos, the more it weighs.
    Raises TrainingError for no photos or logits that are not finite.
    """
    values, targets = np.asarray(logits, np.float64), np.asarray(labels)
    if not len(targets) or values.shape[:1] != targets.shape or not np.isfinite(values).all():
        shape = list(values.shape)
        raise TrainingError(
            f"A temperature can't be fitted to logits {shape} that are not all finite numbers."
        )
    counts = np.ones(len(targets)) if weights is None else np.asarray(weights, np.float64)
    share = 1 / (len(targets) + 1)

    def loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(values / np.exp(log_temperature), axis=1)
        own = np.average(log_probabilities[np.arange(len(targets)), targets], weights=counts)
        return float((share - 1) * own - share * log_probabilities.mean())

    # Convex in 1 / temperature, so on this scale, too, there is only one minimum.
    found = minimize_scalar(loss, bounds=np.log(limits), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x)) if loss(found.x) < loss(0.0) else 1.0
