"""What a model answers for one photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Score(NamedTuple):
    """A label and its probability, 0..1."""

    label: str
    confidence: float


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The answer for one photo.

    source         the photo's path, or what kind of object it was
    labels         class names in the order of the outputs
    logits         float32 [classes]
    probabilities  float32 [classes], 0..1, sum 1
    """

    source: str
    labels: tuple[str, ...]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    @property
    def index(self) -> int:
        """Position of the most probable class; of equal ones, the first."""
        return int(self.probabilities.argmax())

    @property
    def label(self) -> str:
        """Name of the most probable class."""
        return self.labels[self.index]

    @property
    def confidence(self) -> float:
        """Probability of the most probable class, 0..1."""
        return float(self.probabilities[self.index])

    def top(self, count: int = 5) -> list[Score]:
        """The ``count`` most probable classes (fewer if there are fewer), best first."""
        best = np.argsort(-self.probabilities, kind="stable")[: max(count, 0)]
        return [Score(self.labels[i], float(self.probabilities[i])) for i in best]

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """As JSON values, as ``edgetl predict --json`` prints them.

        The keys are source, label, confidence, and probabilities by label.

        top  only so many probabilities, best first; None: all, in the order of the outputs
        """
        all_of_them = zip(self.labels, map(float, self.probabilities), strict=True)
        return {
            "source": self.source,
            "label": self.label,
            "confidence": self.confidence,
            "probabilities": dict(all_of_them if top is None else self.top(top)),
        }

    def __repr__(self) -> str:
        confidence = f"{self.confidence:.4f}"
        return f"Prediction({self.source!r}, label={self.label!r}, confidence={confidence})"
