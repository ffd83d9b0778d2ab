"""Training photos whose label looks wrong (Northcutt et al., Confident Learning, 2021)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax


class LabelIssue(NamedTuple):
    """A photo that a head fitted without it puts into another class.

    photo       its row
    predicted   the class that was predicted
    confidence  in that class, 0..1
    """

    photo: int
    predicted: int
    confidence: float


def find_label_issues(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.int64], photos: NDArray[np.int64]
) -> tuple[LabelIssue, ...]:
    """The photos that are predicted to be of another class, the most confident first.

    logits  float32 [N, classes], calibrated, by a head that was not fitted to these photos
    labels  int64 [N]
    photos  int64 [N], their rows
    """
    predicted, confidence = logits.argmax(1), softmax(logits, axis=1).max(1)
    wrong = np.flatnonzero(predicted != labels)
    return tuple(
        LabelIssue(int(photos[row]), int(predicted[row]), float(confidence[row]))
        for row in wrong[np.argsort(-confidence[wrong], kind="stable")]
    )
