"""How unlike the training photos a photo is: a distance to them, and how undecided the head is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOFTENING = 2.0
"""What the logits are divided by before their entropy is taken."""


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
