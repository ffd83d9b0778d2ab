"""What ``edgetl.drift`` returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.drift.comparison import AnswerComparison
from edgetl.runtime.drift.photo_answers import PhotoAnswers
from edgetl.runtime.drift.unknown_share import UnknownShare
from edgetl.system.message_text import counted
from edgetl.system.notebook import NotebookResult

_FEW_PHOTOS = 20  # of which a test can notice very little
_MANY_COPIES = 0.1  # of the photos


class ClassDrift(NamedTuple):
    """The photos that are given one label.

    photos, share   how many of those compared, and 0..1
    held_out_share  of the held-out photos, 0..1
    part            of the difference that these photos make, all classes together 1; less than 0
                    where they differ in the opposite way
    """

    label: str
    photos: int
    share: float
    held_out_share: float
    part: float


class DriftPhoto(NamedTuple):
    """A photo, the label that it was given, its confidence 0..1 and ``ood_score``.

    part  of the difference that this photo makes; see ``ClassDrift``
    """

    file: str
    label: str
    confidence: float
    ood_score: float
    part: float


@dataclass(frozen=True, eq=False)
class DriftResult(NotebookResult):
    """Whether photos look like those that a model was trained on.

    model       as it was named
    images      the folder, the list or the file of answers
    level       a p-value up to this counts as a drift: the share of false alarms, 0..1
    labels      class names, in the order of the outputs
    answers     the model's answers for all photos
    known       the held-out photos' answers, which these are compared with
    comparison  the p-values, the estimated accuracy, and what makes the difference
    unknown     the share of photos that the model takes for unknown
    seconds     wall time
    machine     packages and processor, name → text
    """

    model: str
    images: str
    level: float
    labels: tuple[str, ...]
    answers: PhotoAnswers
    known: HeldOut
    comparison: AnswerComparison
    unknown: UnknownShare
    seconds: float
    machine: Mapping[str, str]

    _page = "edgetl.evaluation.drift_page:as_html"

    @property
    def drifted(self) -> bool:
        """Whether the photos look different from those of the training."""
        return self.comparison.p_value <= self.level

    @property
    def mix_changed(self) -> bool:
        """Whether the labels come in other shares, which alone is no drift."""
        return self.comparison.mix_p_value <= self.level

    @property
    def verdict(self) -> str:
        """What was found, in words."""
        text = "The photos look different from those that the model was trained on."
        if not self.drifted:
            text = "No sign that the photos differ from those that the model was trained on."
        if self.mix_changed:
            text += " The labels come in other shares" + (", too." if self.drifted else ".")
        return text

    @property
    def noticeable(self) -> float:
        """A change of fewer of the photos than this share, 0..1, is likely to go unnoticed.

        The critical value of Kolmogorov and Smirnov's test.
        """
        here, there = len(self.comparison.compared), len(self.known.labels)
        return min(1.0, math.sqrt(-math.log(self.level / 2) / 2 * (1 / here + 1 / there)))

    @property
    def classes(self) -> list[ClassDrift]:
        """By predicted label, those that make most of the difference first."""
        found, index = self.comparison, self.answers.predicted[self.comparison.compared]
        counts = np.bincount(index, minlength=len(self.labels))
        parts = np.bincount(index, found.parts, len(self.labels))
        rows = zip(self.labels, counts, counts / len(index), found.shares, parts, strict=True)
        classes = [ClassDrift(label, int(count), *map(float, row)) for label, count, *row in rows]
        return sorted(classes, key=lambda one: -one.part)

    @property
    def photos(self) -> list[DriftPhoto]:
        """Those that were compared, the ones that make most of the difference first."""
        answers, rows = self.answers, self.comparison.compared
        figures = answers.predicted, answers.confidence, answers.ood_score
        of_photos = (*(values[rows].tolist() for values in figures), self.comparison.parts.tolist())
        photos = [
            DriftPhoto(answers.names[row], self.labels[label], *others)
            for row, label, *others in zip(rows.tolist(), *of_photos, strict=True)
        ]
        return sorted(photos, key=lambda photo: -photo.part)

    @property
    def warnings(self) -> list[str]:
        """Sentences on what weakens the result."""
        compared, copies = len(self.comparison.compared), self.comparison.near_copies
        failed, found = self.answers.failed, []
        if compared < _FEW_PHOTOS:
            found.append(
                f"With {counted(compared, 'photo')}, a change that concerns "
                f"fewer than {self.noticeable:.0%} of them is likely to go unnoticed."
            )
        if copies > _MANY_COPIES * (compared + copies):
            found.append(
                f"{copies:,} of {compared + copies:,} photos are nearly the same as another one, "
                "as in a video, and are left out. Photos taken one after the other give more false "
                "alarms than promised: take some that are further apart."
            )
        if failed:
            name, reason = next(iter(failed.items()))
            found.append(
                f"{counted(len(failed), 'photo')} can't be classified "
                f"and {'is' if len(failed) == 1 else 'are'} left out: {name}: {reason}."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Every figure, as JSON values."""
        found = self.comparison
        return {
            "schema": 1,
            "model": self.model,
            "images": self.images,
            "verdict": self.verdict,
            "drifted": self.drifted,
            "mix_changed": self.mix_changed,
            "level": self.level,
            "p_value": found.p_value,
            "p_values": dict(found.p_values),
            "mix_p_value": found.mix_p_value,
            "accuracy": found.accuracy._asdict(),
            "unknown": {**self.unknown._asdict(), "is_higher": self.unknown.is_higher},
            "classified": len(self.answers),
            "compared": len(found.compared),
            "near_copies": found.near_copies,
            "held_out": len(self.known.labels),
            "noticeable": self.noticeable,
            "classes": [one._asdict() for one in self.classes],
            "photos": [one._asdict() for one in self.photos],
            "failed": dict(self.answers.failed),
            "warnings": self.warnings,
            "seconds": self.seconds,
            "machine": dict(self.machine),
        }
