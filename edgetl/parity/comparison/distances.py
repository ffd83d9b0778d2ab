"""Metrics: how far a runtime's values for one photo are from the reference's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.parity.results import Gap


def distances(expected: NDArray[Any], found: NDArray[Any]) -> NDArray[np.float64]:
    """Absolute differences, ≥ 0; infinite wherever either side is NaN or infinite, equal or not."""
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return np.where(np.isfinite(difference), difference, np.inf)


def measure(expected: NDArray[Any], found: NDArray[Any], limit: float, photo: str) -> Gap:
    """The largest difference of ``found`` from ``expected``, and where it is.

    A wrong shape, a NaN or an infinity is infinitely far.
    """
    if expected.shape != found.shape:
        problem = f"shape {list(found.shape)} where the reference has {list(expected.shape)}"
        size = expected.size
        return Gap(photo, float("inf"), limit, problem=problem, differing=size, size=size)
    distance = distances(expected, found)
    position = np.unravel_index(int(distance.argmax()), distance.shape)
    infinite = int(np.isinf(distance).sum())
    return Gap(
        photo=photo,
        largest=float(distance[position]),
        limit=limit,
        problem=f"{infinite} values are NaN or infinite" if infinite else None,
        position=tuple(int(index) for index in position),
        expected=float(expected[position]),
        found=float(found[position]),
        differing=int(np.count_nonzero(distance)),
        size=expected.size,
    )


def all_finite(*arrays: NDArray[Any]) -> bool:
    """Whether none of them holds a NaN or an infinite value."""
    return all(bool(np.isfinite(values).all()) for values in arrays)


def kl_divergence(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """KL(expected || found) of two probability vectors [classes], in nats, ≥ 0.

    Infinite if the shapes differ, or either holds a NaN or an infinite value.
    """
    if expected.shape != found.shape or not all_finite(expected, found):
        return float("inf")
    # A softmax in float32 may underflow to 0; that alone must not make the divergence infinite.
    smallest = np.finfo(np.float32).tiny
    p, q = expected.astype(np.float64), np.maximum(found.astype(np.float64), smallest)
    return max(0.0, float(np.sum(p * np.log(np.maximum(p, smallest) / q))))


def margin(probabilities: NDArray[Any]) -> float:
    """Distance of the best probability from the second best, 0..1; 1 where there is one class."""
    if probabilities.size < 2:
        return 1.0
    second, best = np.partition(probabilities, -2)[-2:]
    return float(best) - float(second)


class Percentile999:
    """The 99.9th percentile of values that arrive photo by photo, in a thousandth of the memory.

    Keeps the largest values only.

    photos  at most so many photos will be added, each with the same number of values
    count   values added so far
    """

    SHARE = 0.001

    def __init__(self, photos: int) -> None:
        self._photos, self.count = photos, 0
        self._kept = np.empty(0, np.float32)

    def add(self, values: NDArray[Any]) -> None:
        """Add one photo's values, of any shape."""
        self.count += values.size
        self._kept = np.concatenate([self._kept, values.astype(np.float32).ravel()])
        needed = int(self.SHARE * self._photos * values.size) + 1
        if self._kept.size > 2 * needed + values.size:  # not at every photo: partitioning costs
            self._kept = np.partition(self._kept, -needed)[-needed:]

    def value(self) -> float:
        """The percentile as one of the values, not interpolated, since some may be infinite."""
        above = int(self.SHARE * (self.count - 1))
        return float(np.sort(self._kept)[-1 - above])
