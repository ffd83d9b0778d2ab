"""What an ``OODDetector`` remembers of photos: a mean, a projection, and centres of each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

_DIMENSIONS = 128  # of an embedding; fewer where there are fewer photos or features
_CENTRES = 8  # of a class: all photos as a bank would be hardly better, and grow with them
_MOST_CENTRES = 2048
_PHOTOS_A_CENTRE = 4
_ROUNDS = 10  # of k-means
_SPARE = 16  # directions beside those that are kept: they make the iterations converge faster
_ITERATIONS = 8  # of the subspace, from random directions; a fold's starts from that of all photos
_FOLD_ITERATIONS = 2
_LEAST_SCALE = 1e-5  # of a column, of which the products are 1e-10: double precision has 1e-16


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over photos' features of unit length, which make those of a fold a subtraction.

    count  number of photos
    total  float32 [features]
    outer  float32 [features, features], the sum of their outer products
    """

    count: int
    total: NDArray[np.float32]
    outer: NDArray[np.float32]

    @classmethod
    def of(cls, units: NDArray[np.float32]) -> Moments:
        """Of float32 [N, features]."""
        return cls(len(units), units.sum(0), units.T @ units)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.count - other.count, self.total - other.total, self.outer - other.outer)

    @property
    def mean(self) -> NDArray[np.float32]:
        """Float32 [features]."""
        return self.total / np.float32(self.count)

    def directions(self, start: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The first principal directions, float32 [features, K], by subspace iteration.

        start  of similar photos, which takes fewer iterations
        """
        features = len(self.total)
        width = min(_DIMENSIONS + _SPARE, self.count - 1, features)
        iterations = _FOLD_ITERATIONS
        if start is None:
            iterations = _ITERATIONS
            start = np.random.default_rng(0).standard_normal((features, width), np.float32)
        mean, found = self.mean, start[:, :width]
        for _ in range(iterations):
            spread = self.outer @ found - self.count * mean[:, None] * (mean @ found)
            found = _orthonormal(spread)
        # Sorted by the variance along them.
        within = found.T @ (self.outer @ found) - self.count * np.outer(mean @ found, mean @ found)
        return np.asarray(found @ np.linalg.eigh(within)[1][:, ::-1], np.float32)


@dataclass(frozen=True, eq=False)
class Bank:
    """Photos to compare others with.

    mean        float32 [features], of features of unit length
    projection  float32 [features, dimensions]
    centres     float32 [K, dimensions]
    classes     int64 [K], the class of each centre
    """

    mean: NDArray[np.float32]
    projection: NDArray[np.float32]
    centres: NDArray[np.float32]
    classes: NDArray[np.int64]

    @classmethod
    def build(
        cls,
        units: NDArray[np.float32],
        labels: NDArray[np.int64],
        moments: Moments,
        directions: NDArray[np.float32],
    ) -> Bank:
        """Of photos' features float32 [N, features] of unit length, their moments and directions.

        labels  int64 [N]; -1 for photos that are not in the bank

        It depends on no order of the photos, and on no random number.
        """
        projection = _storable(directions[:, :_DIMENSIONS])
        embedding = units @ projection - moments.mean @ projection
        classes = np.unique(labels[labels >= 0])
        most = max(1, min(_CENTRES, _MOST_CENTRES // len(classes)))
        centres = [_class_centres(embedding[labels == label], most) for label in classes]
        owners = np.repeat(classes, [len(some) for some in centres])
        return cls(moments.mean, projection, _storable(np.concatenate(centres)), owners)

    def class_distances(self, units: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
        """Squared distances to the nearest centre of each class, infinite where it has none.

        units  float32 [N, features], of unit length

        Returns float32 [N, classes].
        """
        u = units - self.mean
        distances = (u**2).sum(1)[:, None] + (self.centres**2).sum(1)
        distances -= 2 * (u @ self.projection) @ self.centres.T
        found = np.full((len(units), classes), np.inf, np.float32)
        for label in np.unique(self.classes):
            found[:, label] = distances[:, self.classes == label].min(1)
        return found


def _orthonormal(columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Orthonormal columns that span the same, float32 [features, K].

    By a Cholesky decomposition of their products, where these are far enough from singular: one
    of the columns themselves takes as long as all the rest, and far longer on a busy machine.
    """
    exact = columns.astype(np.float64)
    try:
        factor = np.linalg.cholesky(exact.T @ exact)
    except np.linalg.LinAlgError:
        return np.linalg.qr(columns)[0]
    scales = factor.diagonal()
    if scales.min() < _LEAST_SCALE * scales.max():
        return np.linalg.qr(columns)[0]
    return np.asarray(solve_triangular(factor, exact.T, lower=True).T, np.float32)


def _class_centres(embedding: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Up to ``most`` centres by k-means (Lloyd, 1982), float32 [K, dimensions]."""
    distinct = np.unique(embedding, axis=0)  # in order of the first principal component
    count = min(most, -(-len(distinct) // _PHOTOS_A_CENTRE))
    centres = distinct[(np.arange(count) * 2 + 1) * len(distinct) // (2 * count)]
    for _ in range(_ROUNDS):
        nearest = ((centres**2).sum(1) - 2 * distinct @ centres.T).argmin(1)
        members = (nearest == np.arange(count)[:, None]).astype(np.float32)
        sizes = members.sum(1, keepdims=True)
        # A centre that loses all its photos stays where it was.
        centres = np.where(sizes, members @ distinct / np.maximum(sizes, 1), centres)
    return centres


def _storable(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded to what float16 holds."""
    return values.astype(np.float16).astype(np.float32)
