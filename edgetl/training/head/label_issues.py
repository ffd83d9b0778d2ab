"""Training photos whose label is more likely wrong than right.

Each label is taken to be wrong with the same probability e, and a wrong one to be any other class.
If a classifier that was fitted without the photo gives a probability of q to the label, the label
is right with a weight of (1 - e)·q, and wrong with one of e·(1 - q) / (classes - 1).

Wrong labels make a calibrated classifier look less sure than it is of all other photos. So its
temperature is fitted once more, together with e: the two under which the labels are the likeliest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, log_softmax, softmax

_LARGEST_RATE = 0.5  # of errors; up to it, a label that is also the prediction is no issue
_LOG_TEMPERATURES = np.linspace(-4.0, 0.0, 9)  # tried first; errors never lower the temperature
_LEAST = 1e-100  # probability


class LabelIssue(NamedTuple):
    """A photo whose label is more likely wrong than right.

    photo        its row
    predicted    the class that a head fitted without it predicts, never the one of the label
    confidence   in that class, 0..1
    label_error  the probability that the label is wrong, 0.5..1
    """

    photo: int
    predicted: int
    confidence: float
    label_error: float


def find_label_issues(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.int64], photos: NDArray[np.int64]
) -> tuple[LabelIssue, ...]:
    """The photos whose label is more likely wrong than right, the likeliest errors first.

    logits  float32 [N, classes], calibrated, by a head that was not fitted to these photos
    labels  int64 [N]
    photos  int64 [N], their rows
    """
    predicted, confidence = logits.argmax(1), softmax(logits, axis=1).max(1)
    log_odds = _log_odds(logits.astype(np.float64), labels)
    wrong = np.flatnonzero(log_odds > 0)
    wrong = wrong[np.argsort(-log_odds[wrong], kind="stable")]
    columns = photos, predicted, confidence, expit(log_odds)
    return tuple(map(LabelIssue, *(column[wrong].tolist() for column in columns)))


def _log_odds(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The log odds that a label is wrong, float64 [N]; minus infinity if no error is likely."""
    others = logits.shape[1] - 1

    def log_given(log_temperature: float) -> NDArray[np.float64]:
        """The log probabilities of the labels."""
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return np.take_along_axis(scaled, labels[:, None], axis=1)[:, 0]

    def loss(log_temperature: float) -> float:
        right = np.exp(log_given(log_temperature))
        rate = _error_rate(right, (1 - right) / others)
        return float(-np.log((1 - rate) * right + rate * (1 - right) / others + _LEAST).mean())

    best = _LOG_TEMPERATURES[np.argmin(list(map(loss, _LOG_TEMPERATURES)))]
    step = _LOG_TEMPERATURES[1] - _LOG_TEMPERATURES[0]
    bounds = best - step, min(best + step, 0.0)
    log_right = log_given(minimize_scalar(loss, bounds=bounds, method="bounded").x)
    right = np.exp(log_right)
    rate = _error_rate(right, (1 - right) / others)
    with np.errstate(divide="ignore"):  # no error, or a label that is certain
        odds = np.log(rate) - np.log1p(-rate) + np.log1p(-right) - np.log(others) - log_right
    return np.asarray(odds, np.float64)


def _error_rate(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> float:
    """The share e of errors with the largest likelihood, the product of (1 - e)·right + e·wrong."""

    def slope(rate: float) -> float:
        likelihood = (1 - rate) * right + rate * wrong
        return float(((wrong - right) / (likelihood + _LEAST)).mean())

    if slope(0.0) <= 0:
        return 0.0
    if slope(_LARGEST_RATE) >= 0:
        return _LARGEST_RATE
    return float(brentq(slope, 0.0, _LARGEST_RATE))
