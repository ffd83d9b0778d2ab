"""How large prediction sets must be: conformal prediction on answers for held-out photos.

A label's score is the probability ahead of it: that of all labels which are more probable. A set
takes in labels up to a limit, below which the right label's score was often enough. These are the
adaptive sets of Romano, Sesia & Candès (2020, Classification with valid and adaptive coverage)
without their random number: the most probable label always has a score of 0. So a set is never
empty, and the same photo always has the same set. The price: where the model alone is right more
often than the level asks, so are its sets.

The limit is the conformal quantile of the photos' scores (``conformal.py``). Where photos were
answered by heads fitted without them, one fold after the other, this is cross-conformal prediction.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgetl.evaluation.conformal import conformal_limit, least_photos
from edgetl.evaluation.labelled_answers import LabelledAnswers
from edgetl.runtime.bundle.prediction_sets import PredictionSets, probability_ahead

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.98, 0.99, 0.995, 0.999)
MIN_CLASS_PHOTOS = 50
"""Of a class that has limits of its own. With fewer, its sets would be mostly chance."""

_ROUNDING = 1e6  # limits are rounded up to its inverse


def calibrate_sets(answers: LabelledAnswers) -> PredictionSets:
    """Sets that hold the right label as often as their level says, for photos like these.

    answers  for photos that fitted nothing
    """
    labels, targets = answers.labels, answers.targets
    scores = probability_ahead(answers.probabilities)[np.arange(len(targets)), targets]
    counts = np.bincount(targets, minlength=len(labels))
    named = np.flatnonzero(counts >= MIN_CLASS_PHOTOS).tolist()
    levels = tuple(level for level in LEVELS if len(scores) >= least_photos(level))
    limits, other_limits = [], []
    class_limits: dict[str, list[float]] = {labels[index]: [] for index in named}
    for level in levels:
        limits.append(_limit(scores, level))
        least = least_photos(level)
        own = [index for index in named if counts[index] >= least]
        others = scores[~np.isin(targets, own)]
        # Too few for a limit of their own: that of all photos.
        other_limits.append(_limit(others, level) if len(others) >= least else limits[-1])
        for index in named:
            found = _limit(scores[targets == index], level) if index in own else other_limits[-1]
            class_limits[labels[index]].append(found)
    return PredictionSets(
        levels,
        tuple(limits),
        len(scores),
        {label: tuple(found) for label, found in class_limits.items()},
        tuple(other_limits),
    )


def _limit(scores: NDArray[np.float64], level: float) -> float:
    return math.ceil(conformal_limit(scores, level) * _ROUNDING) / _ROUNDING
