"""From which score on a photo counts as unknown, and how well that separates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class UnknownLimits:
    """What the graph's ``ood_score`` means.

    threshold   photos with a higher score are unknown
    keep_known  share of known photos at or below it, 0..1
    figures     how well it was measured to separate, as JSON values
    """

    threshold: float
    keep_known: float
    figures: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UnknownLimits:
        """Read a card's JSON values. Raises KeyError, TypeError or ValueError for others."""
        threshold, keep_known = float(values["threshold"]), float(values["keep_known"])
        if not math.isfinite(threshold) or not 0 < keep_known <= 1:
            raise ValueError(f"unknown: threshold {threshold}, keep_known {keep_known}")
        return cls(threshold, keep_known, dict(values["figures"]))
