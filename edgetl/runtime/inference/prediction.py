"""What a model answers for one photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgetl.errors import EdgetlError, ImageError, PredictionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetl.runtime.bundle.promises import Promises


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
    promises       what the model promises of such answers; None: nothing
    ood_score      the higher, the less like the training photos; None, as the two below, where the
                   model can't tell
    is_unknown     the score is above the model's threshold: the label is only the nearest one
    embedding      float32 [dimensions], the photo's place among the training photos
    evidence       float32 [classes, y, x]: what each place of the photo, as the network sees it,
                   adds to the logits; their sum over all places is the logits less the biases.
                   None if it was not asked for, or can't be told
    """

    source: str
    labels: tuple[str, ...]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    promises: Promises | None = None
    ood_score: float | None = None
    is_unknown: bool | None = None
    embedding: NDArray[np.float32] | None = None
    evidence: NDArray[np.float32] | None = None

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

    @property
    def is_sure(self) -> bool | None:
        """Whether it is one of the answers that are right as often as the export asked for.

        See ``edgetl export --precision-at``. None if it did not ask for answers with this label.
        """
        known = self.promises and self.promises.about(self.label)
        return self.confidence >= known.threshold if known else None

    def prediction_set(self, level: float, *, by_class: bool = False) -> tuple[str, ...]:
        """Labels among which the right one is, with a probability of at least ``level``.

        The most probable first, and at least that one. Levels between those that were measured get
        the set of the next higher one. Above the highest, which the held-out photos don't suffice
        for, it is all labels: then none can be ruled out.

        level     above 0 and below 1, such as 0.95
        by_class  the probability holds for the photos of each class, not only for all together,
                  where there were enough held-out photos of it; sets are then larger

        Raises EdgetlError if the model has no prediction sets, ValueError for another level.
        """
        if not 0 < level < 1:
            raise ValueError(f"level is {level}; it must be above 0 and below 1, such as 0.95")
        if self.promises is None:
            raise EdgetlError(
                "This model has no prediction sets: it was trained without validation photos, or "
                "by an earlier version of edgetl.",
                "Train it again, and export it.",
            )
        sets = self.promises.prediction_sets
        members = sets.members(self.probabilities[None], self.labels, level, by_class=by_class)[0]
        best = np.argsort(-self.probabilities, kind="stable")
        return tuple(self.labels[i] for i in best if members[i])

    def top(self, count: int = 5) -> list[Score]:
        """The ``count`` most probable classes (fewer if there are fewer), best first."""
        best = np.argsort(-self.probabilities, kind="stable")[: max(count, 0)]
        return [Score(self.labels[i], float(self.probabilities[i])) for i in best]

    def evidence_for(self, label: str) -> NDArray[np.float32]:
        """What speaks for a label rather than for others: float32 [y, x].

        That is the evidence less the mean of all classes: what all have in common decides nothing.
        Raises ValueError if there is no such label, or no evidence.
        """
        if self.evidence is None:
            raise ValueError("there is no evidence: ask for it with predictor.explain(photo)")
        relative = self.evidence[self.labels.index(label)] - self.evidence.mean(0)
        return np.asarray(relative, np.float32)

    def to_dict(self, top: int | None = None, *, level: float | None = None) -> dict[str, Any]:
        """As JSON values, as ``edgetl predict --json`` prints them.

        The keys are source, label, confidence, and probabilities by label; sure where ``is_sure``
        is known; unknown and ood_score where ``is_unknown`` is; prediction_set where a level is
        given.

        top    only so many probabilities, best first; None: all, in the order of the outputs
        level  of the prediction set, above 0 and below 1

        Raises EdgetlError and ValueError as ``prediction_set`` does.
        """
        score = self.ood_score
        all_of_them = zip(self.labels, map(float, self.probabilities), strict=True)
        return {
            "source": self.source,
            "label": self.label,
            "confidence": self.confidence,
            **({} if self.is_sure is None else {"sure": self.is_sure}),
            **({} if level is None else {"prediction_set": list(self.prediction_set(level))}),
            **({} if score is None else {"unknown": self.is_unknown, "ood_score": score}),
            "probabilities": dict(all_of_them if top is None else self.top(top)),
        }

    def __repr__(self) -> str:
        unknown = ", unknown" if self.is_unknown else ""
        answer = f"label={self.label!r}, confidence={self.confidence:.4f}{unknown}"
        return f"Prediction({self.source!r}, {answer})"


Result = Prediction | ImageError | PredictionError
"""What becomes of one photo among many: its answer, or why there is none."""
