"""How unlike the training photos a photo is: a distance to them, and how undecided the head is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from edgetl.evaluation.conformal import conformal_limit
from edgetl.runtime.bundle.unknown_limits import UnknownLimits

SOFTENING = 2.0
"""What the logits are divided by before their entropy is taken."""
LEAST_LENGTH = 1e-12
"""What |x| is taken for where it is less, so that features of zeros have a score."""


@dataclass(frozen=True, eq=False)
class OODDetector:
    """The parameters of ``ood_score``, for features x and logits of one photo::

        u = x / |x| - mean
        embedding = u @ projection
        distance = |u|² + min over centres c of (|c|² - 2 embedding · c)
        entropy = -sum(q log q) for q = softmax(logits / SOFTENING)
        ood_score = (distance - distance_mean) / distance_std
                    + (entropy - entropy_mean) / entropy_std

    x is the input of the classifier layer; logits are the network's, before the temperature.

    mean        float32 [features]
    projection  float32 [features, dimensions], orthonormal columns, rounded to values that float16
                holds, so that files may store it in half the bytes at no cost
    centres     float32 [K, dimensions], of the training photos' embeddings, rounded like that
    distance_mean, distance_std, entropy_mean, entropy_std  over held-out photos; the spreads are
                above 0
    """

    mean: NDArray[np.float32]
    projection: NDArray[np.float32]
    centres: NDArray[np.float32]
    distance_mean: float
    distance_std: float
    entropy_mean: float
    entropy_std: float

    @property
    def centre_squares(self) -> NDArray[np.float32]:
        """|c|² of each centre, float32 [K]."""
        squares = np.square(self.centres, dtype=np.float64)
        return np.asarray(squares.sum(axis=1), np.float32)

    @property
    def sensitivity(self) -> float:
        """How much a score changes, about, where features and logits change by their own size.

        A distance d changes by up to 2 √d times what its unit vector changes by, the entropy by
        about 1 times the relative change of the logits, whatever their size.
        """
        return (
            2 * math.sqrt(max(self.distance_mean, 0.0)) / self.distance_std + 1 / self.entropy_std
        )

    def limits(self, known: NDArray[np.float32], keep_known: float) -> UnknownLimits:
        """What its score means, by those of known photos that it was not fitted to, [N]."""
        return UnknownLimits(conformal_limit(known, keep_known), keep_known, self.sensitivity)

    def embed(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Float32 [N, features] → [N, dimensions]."""
        return self._centred(features) @ self.projection

    def score(
        self, features: NDArray[np.float32], logits: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Float32 [N, features] and [N, classes] → [N]; higher: less like the training photos."""
        u = self._centred(features)
        to_centres = self.centre_squares - 2 * (u @ self.projection) @ self.centres.T
        return self.combine((u**2).sum(1) + to_centres.min(1), entropy(logits))

    def combine(
        self, distances: NDArray[np.float32], entropies: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The score of photos with these distances and entropies, float32 [N]."""
        far = (distances - self.distance_mean) / self.distance_std
        undecided = (entropies - self.entropy_mean) / self.entropy_std
        return np.asarray(far + undecided, np.float32)

    def _centred(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return unit_length(features) - self.mean


def unit_length(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row of float32 [N, features] divided by its length; one of zeros stays as it is."""
    lengths = np.sqrt(np.einsum("nf,nf->n", features, features))[:, None]
    return np.asarray(features / np.maximum(lengths, np.float32(LEAST_LENGTH)), np.float32)


def entropy(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """How undecided the softened answers are, in nats: float32 [N, classes] → [N]."""
    logs = log_softmax(logits / np.float32(SOFTENING), axis=1)
    return np.asarray(-(np.exp(logs) * logs).sum(1), np.float32)
