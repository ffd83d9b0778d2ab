"""How many of today's photos are unknown, beside how many would be if they were like the known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgetl.runtime.bundle.share_interval import wilson_interval


class UnknownShare(NamedTuple):
    """The share of photos that the model takes for unknown.

    photos    how many
    share     of all that were classified, 0..1
    interval  of the share, at 95 %, if one photo does not depend on another
    expected  the share of photos like those of the training that the threshold lets go, 0..1
    """

    photos: int
    share: float
    interval: tuple[float, float]
    expected: float

    @property
    def is_higher(self) -> bool:
        """Whether it is more than expected, by more than chance explains."""
        return self.interval[0] > self.expected


def unknown_share(is_unknown: NDArray[np.bool_], keep_known: float) -> UnknownShare:
    """Of photos [N], N at least 1, by a threshold that keeps ``keep_known`` of known ones."""
    photos = int(is_unknown.sum())
    interval = wilson_interval(photos, len(is_unknown))
    return UnknownShare(photos, photos / len(is_unknown), interval, round(1 - keep_known, 9))
