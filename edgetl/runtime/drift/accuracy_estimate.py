"""How accurate a model is on photos without labels, judged by how confident it is."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_Z = 1.959964  # of a 95 % interval


class AccuracyEstimate(NamedTuple):
    """Shares of right answers, 0..1.

    value     among the photos, as far as can be told without labels
    interval  that holds what labels would say with 95 % certainty, if the model is as well
              calibrated on these photos as on held-out ones
    held_out  among the held-out photos, by their labels
    """

    value: float
    interval: tuple[float, float]
    held_out: float


def estimate_accuracy(
    right: NDArray[np.bool_], held_out: NDArray[np.float32], confidence: NDArray[np.float32]
) -> AccuracyEstimate:
    """The mean confidence; Guillory et al.'s difference of confidences where there is reason to.

    A calibrated model is right as often as it is confident. If held-out photos say that this one is
    not, by more than chance explains, the difference of their accuracy and their mean confidence is
    added.

    right       [M], whether the held-out photos' answers are right
    held_out    [M], the confidence of these answers
    confidence  [n], of the answers for today's photos
    """
    excess = right.astype(np.float64) - held_out
    wrong = (len(right) - int(right.sum()) + 1) / (len(right) + 2)  # none seen does not mean none
    chance = max(float(excess.var()), wrong * (1 - wrong)) / len(excess)
    correction = float(excess.mean())
    if abs(correction) <= _Z * math.sqrt(chance):
        correction = 0.0
    value = float(confidence.mean(dtype=np.float64)) + correction
    of_labels = float((confidence * (1 - confidence)).mean(dtype=np.float64)) / len(confidence)
    half = _Z * math.sqrt(chance + of_labels)
    low, value, high = np.clip([value - half, value, value + half], 0, 1).tolist()
    return AccuracyEstimate(value, (low, high), float(right.mean()))
