"""Which photos are held out together in cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_PHOTOS = 20_000  # more hardly change what is chosen
_FOLDS = {30_000: 10, 1_000_000: 5}
"""Photos × classes → how many folds there are up to so many; beyond, two.

Of few photos, a fifth is missed: with ten folds the choice depends less on how they were dealt, and
costs little.
"""


@dataclass(frozen=True)
class Folds:
    """The photos of a cross-validation, in parts of which each is held out once.

    rows    int64 [N], of the photos
    fold    int64 [N], the part that each photo is held out with
    count   number of parts
    judged  bool [N], whether other parts, too, have photos of the class. If not, no model has seen
            it when the photo is held out
    """

    rows: NDArray[np.int64]
    fold: NDArray[np.int64]
    count: int
    judged: NDArray[np.bool_]


def deal_folds(labels: NDArray[np.int64], ranks: NDArray[np.int64], classes: int) -> Folds:
    """At most ``MOST_PHOTOS`` photos: the same share of each class, copies counted once.

    ranks  see ``rank_photos``; a photo's fold is its rank modulo the number of folds
    """
    distinct = np.ones(classes)
    np.maximum.at(distinct, labels, ranks + 1.0)
    rows = np.argsort(ranks / distinct[labels], kind="stable")[:MOST_PHOTOS]
    logits = len(rows) * classes
    count = next((count for most, count in _FOLDS.items() if logits <= most), 2)
    fold, labels = ranks[rows] % count, labels[rows]
    judged = np.isin(labels, labels[fold != 0])  # fold 0 has a photo of every class
    return Folds(rows, fold, count, judged)


def rank_photos(
    labels: NDArray[np.int64], digests: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Each photo's rank, from 0, among the distinct photos of its class in order of digest.

    Digests are as good as random, and copies of a photo have the same one, whatever their names
    and order: so copies share a rank, and a fold. Without digests all photos are distinct.
    """
    keys = (
        np.random.default_rng(0).permutation(len(labels))
        if digests is None
        else np.asarray(digests)
    )
    ranks = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks[members] = np.unique(keys[members], return_inverse=True)[1]
    return ranks
