"""Probabilities and intervals of counts, without approximations. numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_BISECTIONS = 32  # to a billionth


def binomial_tail(most: int, photos: int, share: float) -> float:
    """The probability of at most ``most`` of ``photos`` where each counts with that probability."""
    if most >= photos or share <= 0:
        return 1.0
    if most < 0 or share >= 1:
        return 0.0
    count = np.arange(most + 1)
    ways = np.log((photos - count[1:] + 1) / count[1:]).cumsum()  # of choosing count photos, ln
    logs = count * np.log(share) + (photos - count) * np.log1p(-share)
    logs[1:] += ways
    return min(float(np.exp(logs).sum()), 1.0)


def hypergeometric_tail(most: int, drawn: int, marked: int, photos: int) -> float:
    """The probability of at most ``most`` marked ones among ``drawn`` out of ``photos``."""
    count = np.arange(max(0, drawn + marked - photos), min(most, drawn, marked) + 1)
    ways = _log_factorials(photos)

    def choose(of: int, taken: NDArray[np.int64] | int) -> NDArray[np.float64]:
        return np.asarray(ways[of] - ways[taken] - ways[of - taken])

    logs = choose(marked, count) + choose(photos - marked, drawn - count) - choose(photos, drawn)
    return min(float(np.exp(logs).sum()), 1.0)


def clopper_pearson(count: int, photos: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share of which ``count`` of ``photos`` were seen.

    It holds the true share with at least ``confidence``, whatever that share is (Clopper & Pearson,
    1934: The use of confidence or fiducial limits illustrated in the case of the binomial).
    """
    outside = (1 - confidence) / 2
    high = _falls_to(outside, lambda share: binomial_tail(count, photos, share))
    low = 1 - _falls_to(outside, lambda share: binomial_tail(photos - count, photos, share))
    return (low if count else 0.0), (high if count < photos else 1.0)


def _falls_to(value: float, function: Callable[[float], float]) -> float:
    """Where ``function``, which falls from 0 to 1, has ``value``."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > value else (low, middle)
    return high


@lru_cache(maxsize=8)
def _log_factorials(last: int) -> NDArray[np.float64]:
    """ln 0!, ln 1!, … ln last!"""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, last + 1)))])
