"""Is there a mark on the photos of one class? Then the evidence for it lies at one edge.

A date, a logo or a stamp is mostly in a corner or along one side, where subjects seldom are. So the
share of a class's evidence in each corner and at each side is compared with that of the evidence
for the other classes on their photos. Where all classes have their evidence there, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_PHOTOS = 6  # of a class
_MAX_PHOTOS, _MAX_CLASSES = 16, 10  # of a class, and of classes: a few seconds for all
_EDGE = 0.25  # of a side, which is counted as its edge
# A share of the evidence counts that is so many times the area, and that of the other classes.
_TIMES_AREA, _TIMES_OTHERS = 1.5, 3.0
_FALSE_ALARMS = 0.01  # at most, among runs without a mark; the number of comparisons is allowed for


@dataclass(frozen=True)
class EdgeEvidence:
    """A class whose evidence lies at one edge more than that of the others.

    label   index of the class
    place   "top left", "right", …
    share   median share of its evidence there, 0..1
    others  median share of the other classes' evidence there, on their photos
    """

    label: int
    place: str
    share: float
    others: float


def photos_to_explain(probabilities: NDArray[np.float32], targets: NDArray[np.int64]) -> list[int]:
    """Rows of some photos of each class: at most 16 of 10 classes, at least 6 of a class, or none.

    Of more classes, those that are recognised most confidently, as a marked one is.
    """
    own = probabilities[np.arange(len(targets)), targets]
    rows = {label: np.flatnonzero(targets == label) for label in np.unique(targets).tolist()}
    rows = {label: found for label, found in rows.items() if len(found) >= MIN_PHOTOS}
    surest = sorted(rows, key=lambda label: -own[rows[label]].mean())[:_MAX_CLASSES]
    if len(surest) < 2:
        return []
    most = max(MIN_PHOTOS, min(_MAX_PHOTOS, MIN_PHOTOS * _MAX_CLASSES // len(surest)))
    return [
        int(rows[label][place])
        for label in surest
        for place in np.linspace(0, len(rows[label]) - 1, min(most, len(rows[label]))).astype(int)
    ]


def edge_evidence(maps: NDArray[np.float32], targets: NDArray[np.int64]) -> Iterator[EdgeEvidence]:
    """Classes whose evidence lies at an edge, each with the place where it does so most.

    maps     float32 [N, y, x], the evidence in each photo for its own class
    targets  int64 [N], these classes
    """
    shares = _edge_shares(maps)
    comparisons = len(np.unique(targets)) * len(shares)
    for found in suspected(maps, targets):
        from scipy.stats import mannwhitneyu  # takes half a second, and is seldom needed

        share, is_own = shares[found.place], targets == found.label
        chance = mannwhitneyu(share[is_own], share[~is_own], alternative="greater").pvalue
        if chance * comparisons < _FALSE_ALARMS:
            yield found


def suspected(maps: NDArray[np.float32], targets: NDArray[np.int64]) -> Iterator[EdgeEvidence]:
    """What ``edge_evidence`` gives if it is not chance, which few photos can't tell."""
    shares = _edge_shares(maps)
    areas = _edge_shares(np.ones((1, *maps.shape[1:]), np.float32))
    for label in np.unique(targets).tolist():
        is_own = targets == label
        if is_own.all():
            return
        found = [
            EdgeEvidence(label, place, *(float(np.median(share[of])) for of in (is_own, ~is_own)))
            for place, share in shares.items()
        ]
        most = max(found, key=lambda at: at.share - at.others)
        if most.share >= max(_TIMES_AREA * areas[most.place][0], _TIMES_OTHERS * most.others):
            yield most


def _edge_shares(maps: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Place → float32 [N], the share of each map's evidence there."""
    positive = np.maximum(maps, 0)
    positive[~positive.any((1, 2))] = 1  # nothing speaks for it: no place more than another
    positive /= positive.sum((1, 2), keepdims=True)
    edges = _edges(*maps.shape[1:])
    return {place: positive[:, *edge].sum((1, 2)) for place, edge in edges.items()}


def _edges(height: int, width: int) -> dict[str, tuple[slice, slice]]:
    """The rows and columns of the four corners, and of the four sides between them."""
    rows, columns = (
        {near: slice(0, edge), "": slice(edge, length - edge), far: slice(length - edge, length)}
        for length, near, far in ((height, "top", "bottom"), (width, "left", "right"))
        for edge in [max(1, round(_EDGE * length))]
    )
    return {
        f"{row} {column}".strip(): (across, down)
        for row, across in rows.items()
        for column, down in columns.items()
        if row or column
    }
