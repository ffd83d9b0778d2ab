"""From which score on a photo counts as unknown, and how well that separates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

KEEP_KNOWN = 0.95
"""Share of known photos that do not count as unknown, unless another one is asked for."""
MEASURED = ("unknown_folder", "left_out_classes")
"""What ``UnknownLimits.figures`` may say of unknown photos, the user's own first."""
_LARGEST = 1e30  # well inside the range of float32, which scores have


@dataclass(frozen=True)
class UnknownLimits:
    """What the graph's ``ood_score`` means.

    threshold    photos with a higher score are unknown
    keep_known   share of known photos at or below it, 0..1
    sensitivity  how much a score changes where activations change by their own size; from it
                 follows how far a runtime's score may be from the reference's
    figures      how well that was measured to work, as JSON values: "photos", the held-out ones
                 that the threshold was measured on, and how well unknown photos are noticed
                 where ``KEEP_KNOWN`` of known ones are kept, whatever ``keep_known`` is
    """

    threshold: float
    keep_known: float
    sensitivity: float
    figures: Mapping[str, Any] = field(default_factory=dict)

    def is_unknown(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Which photos with these scores, [N] or a single one, are unknown; of NaN none is."""
        # In float64, in which the threshold is stored: one score alone must not fall on another
        # side of it than among others.
        return np.asarray(np.asarray(scores, np.float64) > self.threshold)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UnknownLimits:
        """Read a card's JSON values. Raises KeyError, TypeError or ValueError for others."""
        numbers = [float(values[name]) for name in ("threshold", "keep_known", "sensitivity")]
        threshold, keep_known, sensitivity = numbers
        is_usable = all(abs(number) < _LARGEST for number in numbers)  # not if it is NaN
        if not is_usable or not 0 < keep_known < 1 or sensitivity <= 0:
            raise ValueError(
                f"unknown: threshold {threshold}, keep_known {keep_known}, "
                f"sensitivity {sensitivity}"
            )
        return cls(threshold, keep_known, sensitivity, dict(values["figures"]))
