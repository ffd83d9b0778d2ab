"""Temperature scaling: of the predictions made with 80 % confidence, about 80 % should be right."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from edgetl.errors import TrainingError

LIMITS = (0.05, 20.0)
"""Smallest and largest temperature."""

_MOST_LOGITS = 10_000_000  # photos × classes: of thousands of classes, each pass takes seconds
_STANDARD_ERRORS = 1.0  # by which a temperature must lower the log loss to be worth taking


def calibrate(logits: NDArray[np.float32], labels: Sequence[int] | NDArray[np.int64]) -> float:
    """The fitted temperature, if it lowers the log loss by more than one standard error; else 1.

    A difference that chance explains would make other photos' probabilities worse as often as
    better. Arguments and errors are those of ``fit_temperature``.
    """
    temperature = fit_temperature(logits, labels)
    before, after = (log_likelihoods(logits, labels, divisor) for divisor in (1.0, temperature))
    lowered = after - before
    error = lowered.std() / np.sqrt(len(lowered))
    return temperature if lowered.mean() > _STANDARD_ERRORS * error else 1.0


def log_likelihoods(
    logits: NDArray[np.float32], labels: Sequence[int] | NDArray[np.int64], temperature: float
) -> NDArray[np.float64]:
    """The log of each photo's probability of its label, in double precision, [N]."""
    targets, at_once = np.asarray(labels), max(1, _MOST_LOGITS // logits.shape[1])
    found = np.empty(len(targets))
    for start in range(0, len(targets), at_once):
        some = targets[start : start + at_once]
        values = np.asarray(logits[start : start + at_once], np.float64) / temperature
        found[start : start + at_once] = log_softmax(values, axis=1)[np.arange(len(some)), some]
    return found


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

    Of more than ten million logits, as many as that, drawn with a fixed seed, decide.
    If every photo is right, more confidence always lowers the loss. So one more photo is added of
    which nothing is known (all classes are equally likely): the fewer photos, the more it weighs.
    Raises TrainingError for no photos or logits that are not finite.
    """
    logits, targets = np.asarray(logits), np.asarray(labels, np.int64)
    if not len(targets) or logits.shape[:1] != targets.shape or not np.isfinite(logits).all():
        shape = list(logits.shape)
        raise TrainingError(
            f"A temperature can't be fitted to logits {shape} that are not all finite numbers."
        )
    counts = np.ones(len(targets)) if weights is None else np.asarray(weights, np.float64)
    if logits.size > _MOST_LOGITS:
        most = max(1, _MOST_LOGITS // logits.shape[1])
        some = np.random.default_rng(0).permutation(len(targets))[:most]
        logits, targets, counts = logits[some], targets[some], counts[some]
    values, labelled = torch.from_numpy(logits).double(), torch.from_numpy(targets)[:, None]
    shares, share = torch.from_numpy(counts / counts.sum()), 1 / (len(targets) + 1)

    def loss(log_temperature: float) -> float:
        logs = (values / math.exp(log_temperature)).log_softmax(1)  # in half of scipy's time
        own = logs.gather(1, labelled)[:, 0] @ shares
        return float((share - 1) * own - share * logs.mean())

    # Convex in 1 / temperature, so on this scale, too, there is only one minimum.
    found = minimize_scalar(loss, bounds=np.log(limits), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x)) if loss(found.x) < loss(0.0) else 1.0
