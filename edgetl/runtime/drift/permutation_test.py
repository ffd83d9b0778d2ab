"""A test of whether two groups of photos come from the same distribution, class by class.

If they do, it is chance which photos belong to which group, so dealing the photos out to the
groups anew gives differences as large as the real one. A photo changes places only with photos that
the model gives the same label, so that a change in the mix of classes alone is no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 999
LEAST_LEVEL = 3 / (PERMUTATIONS + 1)
"""What the p-value of three tests together can always fall to: each may have a row of its own that
differs most."""
_LEAST_HELD_OUT = 5  # photos of a stratum; rarer classes are taken together

Weights: TypeAlias = NDArray[np.float32]
"""[PERMUTATIONS + 1, N]: first for the groups as they are, then for each time they were dealt out.

A photo of the second group has 1/n, n being the number of these; one of the first group less than
0, so much that the weights of each stratum sum to 0.
"""
Differences: TypeAlias = NDArray[np.float64]
"""[PERMUTATIONS + 1]: how different the groups are, for each row of ``Weights``."""


def strata(
    first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The strata of two groups by their photos' classes: the classes, the rarest ones in one.

    A class of which the first group has fewer than 5 photos says too little by itself.
    """
    counts = np.bincount(first, minlength=int(max(first.max(), second.max())) + 1)
    stratum, number, photos = np.zeros(len(counts), np.int64), 0, 0
    for index in np.argsort(counts, kind="stable").tolist():
        if photos >= _LEAST_HELD_OUT:
            number, photos = number + 1, 0
        stratum[index] = number
        photos += counts[index]
    return stratum[first], stratum[second]


def deal_out(
    first: NDArray[np.int64], second: NDArray[np.int64], rng: np.random.Generator
) -> Weights:
    """Weights for the photos of two groups, the first group's first.

    first, second  the photos' strata, int64 [M] and [n]
    """
    weights = np.zeros((PERMUTATIONS + 1, len(first) + len(second)), np.float32)
    stratum = np.concatenate([first, second])
    is_second = np.arange(len(stratum)) >= len(first)
    for number in np.unique(second):
        photos = np.flatnonzero(stratum == number)
        dealt = np.tile(is_second[photos], (PERMUTATIONS + 1, 1))
        rng.permuted(dealt[1:], axis=1, out=dealt[1:])
        ones = dealt[0].sum()
        if ones < len(photos):  # otherwise there is nothing to compare these with
            weights[:, photos] = np.where(dealt, 1.0, -ones / (len(photos) - ones)) / len(second)
    return weights


def mean_shift(weights: Weights, points: NDArray[np.float32]) -> Differences:
    """The squared distance of the groups' means, each stratum's difference by its photos.

    points  float32 [N, dimensions]

    It hardly depends on how far the groups spread, and the embeddings of photos that the projection
    was fitted to spread more than those of others do.
    """
    return np.asarray(((weights @ points).astype(np.float64) ** 2).sum(1))


def largest_rise(weights: Weights, values: NDArray[np.float32]) -> Differences:
    """Kolmogorov and Smirnov's, one-sided: the second group's values are higher.

    By how much its share of photos above a value exceeds the first group's, at most.

    values  float32 [N], one for each photo
    """
    order = np.argsort(values, kind="stable")
    ends = np.append(np.diff(values[order]) != 0, True)  # equal values are one step
    sums = np.cumsum(weights[:, order], axis=1, dtype=np.float64)
    return np.asarray(-sums[:, ends].min(1))


def p_values(differences: Differences) -> NDArray[np.float64]:
    """The share of rows that differ at least as much, [PERMUTATIONS + 1]."""
    # Rounding must not tell two rows apart that hold the same photos.
    rounded = np.round(differences / max(np.abs(differences).max(), 1e-30), 6)
    at_least = len(rounded) - np.searchsorted(np.sort(rounded), rounded)
    return np.asarray(at_least / len(rounded))


def combine(differences: Mapping[str, Differences]) -> tuple[float, dict[str, float]]:
    """(the p-value of all tests together, the p-value of each).

    Together, the least p-value is compared with the least one of each time that the photos were
    dealt out, so that several tests raise no more false alarms than one does.
    """
    each = {name: p_values(values) for name, values in differences.items()}
    least = np.min(list(each.values()), axis=0)
    return float(p_values(-least)[0]), {name: float(values[0]) for name, values in each.items()}


def class_mix(
    first: NDArray[np.int64], second: NDArray[np.int64], rng: np.random.Generator
) -> float:
    """The p-value of chi-squared between two groups' classes, int64 [M] and [n]."""
    classes = int(max(first.max(), second.max())) + 1
    counts = np.bincount(second, minlength=classes)
    total = counts + np.bincount(first, minlength=classes)
    counts, total = counts[total > 0], total[total > 0]
    dealt = rng.multivariate_hypergeometric(total, len(second), PERMUTATIONS, method="marginals")
    expected = total * (len(second) / total.sum())
    return float(p_values((((np.vstack([counts, dealt]) - expected) ** 2) / expected).sum(1))[0])
