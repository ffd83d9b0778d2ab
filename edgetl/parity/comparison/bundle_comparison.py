"""Compare two exported models by what they predict: fp32 with int8, last month's with today's.

Needs no torch.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from edgetl.data.photo_digests import trained_on
from edgetl.errors import ParityError, PredictionError
from edgetl.parity.comparison.distances import kl_divergence
from edgetl.parity.results import Accuracy, AgainstResult, ClassAccuracy, Disagreement, Finding
from edgetl.runtime.images.photo_list import true_label
from edgetl.runtime.inference.prediction import Prediction, Result
from edgetl.runtime.inference.predictor import Predictor
from edgetl.system.message_text import first_few
from edgetl.system.paths import name_below
from edgetl.system.progress import Progress, no_progress, track

_MAX_NAMED = 10  # photos in one sentence


def compare_bundles(
    new: Predictor,
    old: Predictor,
    photos: Sequence[Path],
    root: Path,
    *,
    given_labels: Mapping[Path, str] = MappingProxyType({}),
    max_accuracy_drop: float | None = None,
    tolerance: float | None = None,
    progress: Progress = no_progress,
) -> AgainstResult:
    """Classify ``photos`` with both, and compare the labels by name.

    root               folder that the photos' names are relative to; a photo in a folder that is
                       named like a label has that label
    given_labels       labels of photos, in place of those of the folders
    max_accuracy_drop  percentage points of accuracy that ``new`` may lose; None: no limit
    tolerance          largest difference of a probability, 0..1; None: no limit
    progress           called after each photo

    A photo on which a model fails, for example with NaN, fails the comparison. Raises ParityError
    if no photo can be read or a limit can't be applied: what can't be measured has not passed.
    Raises BundleError for a damaged model.
    """
    started = time.perf_counter()
    same_labels = new.labels == old.labels
    if tolerance is not None and not same_labels:
        raise ParityError(
            "The two models have different labels, so their probabilities can't be compared.",
            "Leave out --tolerance.",
        )
    labels = {*new.labels, *old.labels}
    truths = [true_label(path, given_labels.get(path), root, labels) for path in photos]
    if max_accuracy_drop is not None and not any(truths):
        raise _no_truth()
    pairs = _AnswerPairs(same_labels)
    answers = zip(photos, truths, new.batch(photos), old.batch(photos), strict=True)
    tracked = track(answers, len(photos), "Comparing photos", progress)
    for path, truth, new_answer, old_answer in tracked:
        pairs.add(name_below(path, root), truth, new_answer, old_answer)
    gates = [pairs.photo_gate()]
    accuracy, largest = pairs.accuracy(), max(pairs.distances, default=None)
    if pairs.photos == 0 and gates[0].passed:
        raise ParityError(
            f"None of {len(photos)} photos can be read, so there is nothing to compare."
        )
    if max_accuracy_drop is not None and pairs.photos:
        gates.append(_accuracy_gate(accuracy, max_accuracy_drop))
    if tolerance is not None and largest is not None:
        message = f"they differ by up to {largest:.3g}, {tolerance:g} allowed"
        gates.append(Finding("probabilities", largest <= tolerance, message))
    return AgainstResult(
        new=str(new.path),
        old=str(old.path),
        root=root,
        photos=pairs.photos,
        unreadable=pairs.unreadable,
        disagreements=tuple(pairs.disagreements),
        largest=largest,
        kl_mean=float(np.mean(pairs.divergences)) if pairs.divergences else None,
        accuracy=accuracy,
        unlabelled=pairs.photos - (accuracy.photos if accuracy else 0),
        trained_on=_trained_on(new, old, {name_below(path, root): path for path in photos}),
        gates=tuple(gates),
        seconds=time.perf_counter() - started,
    )


def _trained_on(new: Predictor, old: Predictor, photos: Mapping[str, Path]) -> tuple[str, ...]:
    seen = {name for model in (new, old) for name in trained_on(model.bundle, photos) or ()}
    return tuple(name for name in photos if name in seen)


class _AnswerPairs:
    """Collects both models' answers, photo by photo.

    distances, divergences  of the probabilities, one a photo; empty if the labels differ
    """

    def __init__(self, same_labels: bool) -> None:
        self.photos = 0
        self.unreadable: dict[str, str] = {}
        self.disagreements: list[Disagreement] = []
        self.distances: list[float] = []
        self.divergences: list[float] = []
        self._same_labels = same_labels
        self._unanswered: list[str] = []
        self._correct: dict[str, list[tuple[bool, bool]]] = defaultdict(list)

    def add(self, photo: str, truth: str | None, new: Result, old: Result) -> None:
        """``truth``: the label of the photo's folder, None if unknown."""
        if not isinstance(new, Prediction) or not isinstance(old, Prediction):
            self._add_refusal(photo, new, old)
            return
        self.photos += 1
        if new.label != old.label:
            answers = (new.label, new.confidence, old.label, old.confidence)
            self.disagreements.append(Disagreement(photo, *answers, truth))
        if self._same_labels:
            self.distances.append(float(np.abs(new.probabilities - old.probabilities).max()))
            self.divergences.append(kl_divergence(old.probabilities, new.probabilities))
        if truth is not None:
            self._correct[truth].append((new.label == truth, old.label == truth))

    def photo_gate(self) -> Finding:
        """Whether both models answered the same photos."""
        named = first_few(self._unanswered, _MAX_NAMED)
        message = "; ".join(named) or "both models answer the same photos"
        return Finding("photos", not named, message)

    def accuracy(self) -> Accuracy | None:
        """None if the label of no photo is known."""
        if not self._correct:
            return None
        classes = tuple(
            ClassAccuracy(label, len(correct), *_shares(correct))
            for label, correct in sorted(self._correct.items())
        )
        everything = [pair for correct in self._correct.values() for pair in correct]
        return Accuracy(len(everything), *_shares(everything), classes)

    def _add_refusal(self, photo: str, new: Result, old: Result) -> None:
        errors = [
            (name, answer)
            for name, answer in (("new", new), ("old", old))
            if not isinstance(answer, Prediction)
        ]
        failures = [one for one in errors if isinstance(one[1], PredictionError)]
        if len(errors) == 2 and not failures:
            self.unreadable[photo] = errors[0][1].reason
            return
        name, error = (failures or errors)[0]
        reason = error.message if isinstance(error, PredictionError) else error.reason
        subject = (
            "neither model gives an" if len(errors) == 2 else f"only the {name} model gives no"
        )
        self._unanswered.append(f"{photo}: {subject} answer: {reason}")


def _shares(correct: Sequence[tuple[bool, bool]]) -> tuple[float, float]:
    """Share of correct labels, 0..1: (new, old)."""
    new, old = np.mean(correct, axis=0)
    return float(new), float(old)


def _accuracy_gate(accuracy: Accuracy | None, limit: float) -> Finding:
    if accuracy is None:
        raise _no_truth()
    message = (
        f"from {accuracy.old:.2%} to {accuracy.new:.2%} over {accuracy.photos} photos: "
        f"{accuracy.drop:.2f} points lost, {limit:g} allowed"
    )
    return Finding("accuracy", accuracy.drop <= limit, message)


def _no_truth() -> ParityError:
    return ParityError(
        "No photo that can be read has a label of these models, in a list or by its folder, "
        "so accuracy can't be measured.",
        "With --max-accuracy-drop, name class folders or a list with labels with --images.",
    )
