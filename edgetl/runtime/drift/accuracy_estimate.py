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
    """Guillory et al.'s difference of confidences, corrected as far as it is not chance.

    A calibrated model is right as often as it is confident. By how much this one is not, the
    held-out photos say: their accuracy less their mean confidence. That is taken from it in the
    proportion in which its square exceeds what chance gives.

    right       [M], whether the held-out photos' answers are right
    held_out    [M], the confidence of these answers
    confidence  [n], of the answers for today's photos
    """
    excess = right.astype(np.float64) - held_out
    correction, chance = float(excess.mean()), float(excess.var()) / len(excess)
    correction *= correction**2 / max(correction**2 + chance, 1e-12)
    value = float(confidence.mean(dtype=np.float64)) + correction
    of_labels = float((confidence * (1 - confidence)).mean(dtype=np.float64)) / len(confidence)
    half = _Z * math.sqrt(chance + of_labels)
    low, value, high = np.clip([value - half, value, value + half], 0, 1).tolist()
    return AccuracyEstimate(value, (low, high), float(right.mean()))
