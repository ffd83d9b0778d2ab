"""From which score on a photo counts as unknown, and how well that separates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


_LARGEST = 1e30  # well inside the range of float32, which scores have


@dataclass(frozen=True)
class UnknownLimits:
    """What the graph's ``ood_score`` means.

    threshold    photos with a higher score are unknown
    keep_known   share of known photos at or below it, 0..1
    sensitivity  how much a score changes where activations change by their own size; from it
                 follows how far a runtime's score may be from the reference's
    figures      how well it was measured to separate, as JSON values
    """

    threshold: float
    keep_known: float
    sensitivity: float
    figures: Mapping[str, Any] = field(default_factory=dict)

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


def known_threshold(scores: NDArray[np.float32], keep_known: float) -> float:
    """The score that the next known photo stays at or below with a probability of ``keep_known``.

    scores      float32 [M], M at least 1, of photos that fitted nothing
    keep_known  above 0, below 1

    The conformal quantile: the ⌈(M + 1) keep_known⌉-th score. Fewer than ``least_photos`` can't
    tell so much, and the highest score is returned.
    """
    rank = math.ceil(round((len(scores) + 1) * keep_known, 9))
    return float(np.sort(scores)[min(max(rank, 1), len(scores)) - 1])


def least_photos(keep_known: float) -> int:
    """How many scores ``known_threshold`` takes at least for ``keep_known``."""
    return math.ceil(round(keep_known / (1 - keep_known), 9))
