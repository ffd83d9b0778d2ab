"""Compare two exported models by what they answer: fp32 with int8, last month's with today's. Needs no torch."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgetl.errors import BundleError, ImageError, ParityError, PredictionError
from edgetl.parity.distances import kl_divergence
from edgetl.parity.results import Accuracy, AgainstResult, ClassAccuracy, Disagreement, Finding
from edgetl.runtime.images.discovery import class_folder
from edgetl.runtime.inference.prediction import Prediction
from edgetl.runtime.inference.predictor import Predictor
from edgetl.system.environment import describe_machine

_NO_TRUTH = "No photo that can be read lies in a folder that is named like a label, so accuracy can't be measured."
_WHERE_TRUTH_IS = "With --max-accuracy-drop, name a folder of class folders with --images."
_MOST_NAMED = 10  # photos in one sentence


def compare_bundles(
    new: Predictor,
    old: Predictor,
    photos: Sequence[Path],
    root: Path,
    *,
    max_accuracy_drop: float | None = None,
    tolerance: float | None = None,
    progress: Callable[[], object] = lambda: None,
) -> AgainstResult:
    """Classify ``photos`` with both and compare the labels, by name.

    root               folder that the photos' names are relative to; a photo in a folder that is named like a label has
                       that label
    max_accuracy_drop  points (hundredths) of accuracy that ``new`` may lose; None: no gate
    tolerance          largest difference of a probability, 0..1; None: no gate
    progress           called after each photo

    A photo on which a model fails, as by answering NaN, fails the comparison. Raises ParityError if no photo can be read, or
    a gate can't be measured: what could not be measured is no pass. Raises BundleError for a damaged model.
    """
    started = time.perf_counter()
    labels = {*new.labels, *old.labels}
    if tolerance is not None and new.labels != old.labels:
        raise ParityError(
            "The two models have different labels, so their probabilities can't be compared.",
            "Leave out --tolerance.",
        )
    if max_accuracy_drop is not None and not any(
        class_folder(path, root, labels) for path in photos
    ):
        raise ParityError(_NO_TRUTH, _WHERE_TRUTH_IS)
    tally = _Pairs(new.labels == old.labels)
    for path, ours, theirs in zip(photos, new.batch(photos), old.batch(photos), strict=True):
        tally.add(path.relative_to(root).as_posix(), class_folder(path, root, labels), ours, theirs)
        progress()
    answered = tally.photo_gate()
    if tally.compared == 0 and answered.passed:
        raise ParityError(
            f"None of {len(photos)} photos can be read, so there is nothing to compare."
        )
    accuracy = tally.accuracy()
    return AgainstResult(
        new=str(new.path),
        old=str(old.path),
        root=root,
        photos=tally.compared,
        unreadable=tally.unreadable,
        disagreements=tuple(tally.disagreements),
        largest=tally.largest,
        kl_mean=tally.kl_mean,
        accuracy=accuracy,
        unlabelled=tally.compared - (accuracy.photos if accuracy else 0),
        gates=(
            answered,
            *(_accuracy_gate(accuracy, max_accuracy_drop) if tally.compared else ()),
            *_probability_gate(tally.largest, tolerance),
        ),
        seconds=time.perf_counter() - started,
        machine=describe_machine(),
    )


def unopened(new: Path, old: Path, root: Path, error: BundleError) -> AgainstResult:
    """The result where one of the two is damaged: nothing compared, and that is a failure."""
    gate = Finding("bundle", False, f"{error.message.rstrip('.')}. {error.hint or ''}".rstrip())
    return AgainstResult(
        str(new), str(old), root, 0, {}, (), None, None, None, 0, (gate,), 0.0, describe_machine()
    )


class _Pairs:
    """Both answers to each photo."""

    def __init__(self, same_labels: bool) -> None:
        self.compared = 0
        self.unreadable: dict[str, str] = {}
        self.disagreements: list[Disagreement] = []
        self._unanswered: list[str] = []
        self._same_labels = same_labels
        self._distances: list[float] = []
        self._divergences: list[float] = []
        self._right: dict[str, list[tuple[bool, bool]]] = defaultdict(list)

    def add(
        self,
        photo: str,
        truth: str | None,
        new: Prediction | ImageError | PredictionError,
        old: Prediction | ImageError | PredictionError,
    ) -> None:
        if not (isinstance(new, Prediction) and isinstance(old, Prediction)):
            self._add_refusal(photo, new, old)
            return
        self.compared += 1
        if new.label != old.label:
            answers = (new.label, new.confidence, old.label, old.confidence)
            self.disagreements.append(Disagreement(photo, *answers, truth))
        if self._same_labels:
            self._distances.append(float(np.abs(new.probabilities - old.probabilities).max()))
            self._divergences.append(kl_divergence(old.probabilities, new.probabilities))
        if truth is not None:
            self._right[truth].append((new.label == truth, old.label == truth))

    @property
    def largest(self) -> float | None:
        return max(self._distances, default=None)

    @property
    def kl_mean(self) -> float | None:
        return float(np.mean(self._divergences)) if self._divergences else None

    def photo_gate(self) -> Finding:
        more = len(self._unanswered) - _MOST_NAMED
        named = [*self._unanswered[:_MOST_NAMED], *([f"and {more:,} more"] if more > 0 else ())]
        return Finding(
            "photos", not named, "; ".join(named) or "both models answer the same photos"
        )

    def accuracy(self) -> Accuracy | None:
        if not self._right:
            return None
        classes = tuple(
            ClassAccuracy(label, len(right), *_shares(right))
            for label, right in sorted(self._right.items())
        )
        everything = [pair for right in self._right.values() for pair in right]
        return Accuracy(len(everything), *_shares(everything), classes)

    def _add_refusal(
        self,
        photo: str,
        new: Prediction | ImageError | PredictionError,
        old: Prediction | ImageError | PredictionError,
    ) -> None:
        refusals = [
            (who, one)
            for who, one in (("new", new), ("old", old))
            if not isinstance(one, Prediction)
        ]
        failures = [(who, one) for who, one in refusals if isinstance(one, PredictionError)]
        if len(refusals) == 2 and not failures:
            self.unreadable[photo] = refusals[0][1].reason
            return
        who, refusal = (failures or refusals)[0]
        reason = refusal.message if isinstance(refusal, PredictionError) else refusal.reason
        whose = "neither model gives an" if len(refusals) == 2 else f"only the {who} model gives no"
        self._unanswered.append(f"{photo}: {whose} answer: {reason}")


def _shares(right: Sequence[tuple[bool, bool]]) -> tuple[float, float]:
    """Share of right answers, 0..1: (new, old)."""
    new, old = np.mean(right, axis=0)
    return float(new), float(old)


def _accuracy_gate(accuracy: Accuracy | None, limit: float | None) -> list[Finding]:
    if limit is None:
        return []
    if accuracy is None:
        raise ParityError(_NO_TRUTH, _WHERE_TRUTH_IS)
    change = f"from {accuracy.old:.2%} to {accuracy.new:.2%} over {accuracy.photos} photos"
    return [
        Finding(
            "accuracy",
            accuracy.drop <= limit,
            f"{change}: {accuracy.drop:.2f} points lost, {limit:g} allowed",
        )
    ]


def _probability_gate(largest: float | None, limit: float | None) -> list[Finding]:
    if limit is None or largest is None:
        return []
    return [
        Finding(
            "probabilities",
            largest <= limit,
            f"they differ by up to {largest:.3g}, {limit:g} allowed",
        )
    ]
