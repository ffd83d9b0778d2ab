"""Conformal quantiles: limits that the next photo stays below as often as was asked for.

Photos of the same kind come in any order, so the score of one more is as likely to be the k-th of
n + 1 for each k. It is at most the ⌈(n + 1) level⌉-th smallest score of the n others with a
probability of ``level`` or more, however scores are distributed (Vovk, Gammerman & Shafer 2005,
Algorithmic learning in a random world).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def conformal_limit(scores: NDArray[np.floating], level: float) -> float:
    """What the score of the next photo is at most, with a probability of ``level``.

    scores  [N], N at least 1, of photos that fitted nothing
    level   0..1

    Fewer scores than ``least_photos`` can't tell so much: then it is the highest of them.
    """
    return float(conformal_limits(scores, level))


def conformal_limits(scores: NDArray[np.floating], levels: ArrayLike) -> NDArray[np.floating]:
    """The same for several levels, in their shape."""
    ranks = np.ceil(np.round((len(scores) + 1) * np.asarray(levels), 9)).astype(np.int64)
    return np.asarray(np.sort(scores)[np.clip(ranks, 1, len(scores)) - 1])


def least_photos(level: float) -> int:
    """The fewest scores that have a limit for ``level``."""
    return math.ceil(round(level / (1 - level), 9))
