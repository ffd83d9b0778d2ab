"""How unlike the training photos a photo is: a distance to them, and how undecided the head is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    projection  float32 [features, dimensions], orthonormal columns
    centres     float32 [K, dimensions], of the training photos' embeddings
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
