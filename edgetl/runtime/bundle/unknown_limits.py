"""From which score on a photo counts as unknown, and how well that separates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEEP_KNOWN = 0.95
"""Share of known photos that do not count as unknown, unless another one is asked for."""
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
