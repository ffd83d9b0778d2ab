"""Today's answers compared with those for held-out photos of the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.drift import permutation_test
from edgetl.runtime.drift.accuracy_estimate import AccuracyEstimate, estimate_accuracy
from edgetl.runtime.drift.photo_answers import PhotoAnswers

_MOST_COMPARED = 1000  # photos: more take longer, and show differences that don't matter
_NEAR = 0.2  # of the median distance of held-out photos: then it is nearly the same photo
_DIGITS = 4  # of a confidence: runtimes differ in later ones, in which many photos differ from 1
_SEED = 0  # the same photos give the same p-values


@dataclass(frozen=True, eq=False)
class AnswerComparison:
    """How today's photos differ from held-out ones.

    p_value       how often chance alone makes photos of the same kind differ as much, 0..1
    p_values      the same of each figure alone: "embedding", "ood_score", "confidence"
    mix_p_value   the same of the shares of the classes that are predicted
    accuracy      of the answers for all photos, estimated
    compared      int64 [n], which photos were compared: at most 1,000, evenly spread, without those
                  that are nearly the same as an earlier one
    parts         float64 [n], each one's part of the embeddings' difference, their sum 1; less than
                  0 for a photo that differs in the opposite way
    near_copies   how many photos were left out because they are nearly the same as an earlier one
    shares        float64 [classes], of the held-out photos that get each label
    """

    p_value: float
    p_values: Mapping[str, float]
    mix_p_value: float
    accuracy: AccuracyEstimate
    compared: NDArray[np.int64]
    parts: NDArray[np.float64]
    near_copies: int
    shares: NDArray[np.float64]


def compare(known: HeldOut, answers: PhotoAnswers, temperature: float) -> AnswerComparison:
    """Compare ``answers`` with those for the ``known`` photos of the same model."""
    rng = np.random.default_rng(_SEED)
    confidence = known.probabilities(temperature).max(1)
    predicted = known.logits.argmax(1)
    old = known.embedding.astype(np.float32)

    some = np.unique(np.linspace(0, len(answers) - 1, _MOST_COMPARED).round().astype(np.int64))
    radius = _NEAR * float(np.median(_distances(old)[np.triu_indices(len(old), 1)]))
    compared = some[_first_of_its_kind(answers.embedding[some], radius)]
    new, labels = answers.embedding[compared], answers.predicted[compared]

    first, second = permutation_test.strata(predicted, labels)
    weights = permutation_test.deal_out(first, second, rng)
    points = np.concatenate([old, new])
    p_value, p_values = permutation_test.combine(
        {
            "embedding": permutation_test.mean_shift(weights, points),
            # One-sided: the model has seen more photos than those that judged the held-out ones, so
            # it is a little surer of photos of the same kind.
            "ood_score": permutation_test.largest_rise(
                weights, np.concatenate([known.ood_score, answers.ood_score[compared]])
            ),
            "confidence": permutation_test.largest_rise(
                weights,
                -np.concatenate([confidence, answers.confidence[compared]]).round(_DIGITS),
            ),
        }
    )
    return AnswerComparison(
        p_value=p_value,
        p_values=p_values,
        mix_p_value=permutation_test.class_mix(predicted, labels, rng),
        accuracy=estimate_accuracy(predicted == known.labels, confidence, answers.confidence),
        compared=compared,
        parts=_parts(old, first, new, second, weights[0] @ points),
        near_copies=len(some) - len(compared),
        shares=np.bincount(predicted, minlength=known.logits.shape[1]) / len(predicted),
    )


def _first_of_its_kind(points: NDArray[np.float32], radius: float) -> NDArray[np.bool_]:
    """Which of ``points`` have no earlier one, that counts itself, within ``radius``."""
    near, counts = _distances(points) < radius, np.ones(len(points), np.bool_)
    for index in range(1, len(points)):
        counts[index] = not (near[index, :index] & counts[:index]).any()
    return counts


def _distances(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Euclidean, [N, dimensions] → [N, N]."""
    squares = (points**2).sum(1)
    return np.asarray(np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0)))


def _parts(
    old: NDArray[np.float32],
    first: NDArray[np.int64],
    new: NDArray[np.float32],
    second: NDArray[np.int64],
    shift: NDArray[np.float32],
) -> NDArray[np.float64]:
    """How far each of ``new`` lies along ``shift`` from the mean of ``old`` in its stratum."""
    along, old_along = new.astype(np.float64) @ shift, old.astype(np.float64) @ shift
    counts = np.bincount(first, minlength=int(second.max()) + 1)
    means = np.bincount(first, old_along, len(counts)) / np.maximum(counts, 1)
    parts = along - means[second]
    return np.asarray(parts / max(len(new) * float(shift @ shift), 1e-30))
