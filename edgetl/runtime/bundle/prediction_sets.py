"""Sets of labels that hold the right one with a probability that the caller chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class PredictionSets:
    """Which labels belong to a set: those with at most a certain probability ahead of them.

    levels        the probabilities that a set can be had for, ascending, above 0 and below 1
    limits        for each of them, the most probability that may be ahead of a label of the set
    photos        how many they were measured on
    class_limits  label → limits measured on photos of this class alone, where these are enough
    other_limits  limits of the classes that ``class_limits`` does not name, together
    """

    levels: tuple[float, ...]
    limits: tuple[float, ...]
    photos: int
    class_limits: Mapping[str, tuple[float, ...]]
    other_limits: tuple[float, ...]

    def members(
        self,
        probabilities: NDArray[np.float32],
        labels: tuple[str, ...],
        level: float,
        *,
        by_class: bool = False,
    ) -> NDArray[np.bool_]:
        """Which labels are in the sets for ``probabilities`` [N, classes]; bool [N, classes].

        The most probable label always is. The set is that of the next higher of ``levels``; above
        the highest one, which the photos don't suffice for, it is all labels.
        """
        place = next((at for at, known in enumerate(self.levels) if known >= level), None)
        if place is None:
            return np.ones(probabilities.shape, np.bool_)
        limits = [self.limits[place]] * len(labels)
        if by_class:
            limits = [self.class_limits.get(label, self.other_limits)[place] for label in labels]
        ahead = probability_ahead(probabilities)
        found: NDArray[np.bool_] = (ahead <= np.array(limits)) | (ahead == 0)
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PredictionSets:
        """Read a card's JSON values. Raises KeyError, TypeError or ValueError for others."""
        levels, limits, others = (
            tuple(map(float, values[name])) for name in ("levels", "limits", "other_limits")
        )
        by_class = {
            str(label): tuple(map(float, own)) for label, own in values["class_limits"].items()
        }
        if {len(own) for own in (limits, others, *by_class.values())} != {len(levels)}:
            raise ValueError("prediction sets: there must be as many limits as levels")
        if list(levels) != sorted(levels) or not all(0 < level < 1 for level in levels):
            raise ValueError(f"prediction sets: levels {levels}")
        if not all(limit >= 0 for own in (limits, others, *by_class.values()) for limit in own):
            raise ValueError("prediction sets: a limit is no probability")
        return cls(levels, limits, int(values["photos"]), by_class, others)


def probability_ahead(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much probability is on labels before each one, the most probable first, [N, classes].

    0 for the most probable label. Of equally probable ones, the first comes first.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities.astype(np.float64), order, 1)
    ahead = np.zeros_like(ranked)
    total = np.minimum(np.cumsum(ranked[:, :-1], axis=1), 1.0)
    np.put_along_axis(ahead, order[:, 1:], total, 1)
    return ahead
