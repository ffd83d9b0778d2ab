"""From which confidence on an answer counts as sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SureAnswers:
    """Answers from a confidence of ``threshold`` on are right at least as often as ``precision``.

    label       of the answers that this is about; None: of all labels without an own entry
    precision   share of right answers, 0..1
    confidence  with which that was shown, 0..1
    threshold   0..1
    """

    label: str | None
    precision: float
    confidence: float
    threshold: float

    @property
    def text(self) -> str:
        """From when on answers are sure, in words."""
        whose = "" if self.label is None else f"{self.label}: "
        return f"{whose}from a confidence of {100 * self.threshold:.4g}% on"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SureAnswers:
        """Read a card's JSON values. Raises KeyError, TypeError or ValueError for others."""
        label = values["label"]
        numbers = [float(values[name]) for name in ("precision", "confidence", "threshold")]
        if not (label is None or isinstance(label, str)) or not all(0 <= x <= 1 for x in numbers):
            raise ValueError(f"sure answers: {dict(values)}")
        return cls(label, *numbers)
