"""Answers of a classifier that is calibrated by construction."""

from __future__ import annotations

import numpy as np

from edgetl.evaluation.labelled_answers import LabelledAnswers


def random_answers(
    photos: int, *, classes: int = 5, sharpness: float = 3.0, seed: int = 0
) -> LabelledAnswers:
    """Every label is right with its probability. sharpness: the higher, the more often right."""
    rng = np.random.default_rng(seed)
    weights = np.exp(sharpness * rng.normal(size=(photos, classes)))
    probabilities = weights / weights.sum(1, keepdims=True)
    targets = (probabilities.cumsum(1) > rng.random((photos, 1))).argmax(1)
    labels = tuple(f"class {index}" for index in range(classes))
    return LabelledAnswers(labels, probabilities.astype(np.float32), targets)
