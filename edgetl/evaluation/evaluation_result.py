"""What ``edgetl.evaluate`` returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgetl.evaluation.labelled_answers import LabelledAnswers
from edgetl.evaluation.metrics import (
    CalibrationPoint,
    ClassMetrics,
    calibration_curve,
    confusion_matrix,
)
from edgetl.evaluation.statement_check import StatementCheck, check_statement
from edgetl.evaluation.true_labels import unlabelled_warning
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.system.message_text import counted, enumerated
from edgetl.system.notebook import NotebookResult


class EvaluatedPhoto(NamedTuple):
    """A photo's name below the folder, its true label, the predicted one, its confidence 0..1."""

    file: str
    truth: str
    label: str
    confidence: float


@dataclass(frozen=True, eq=False)
class EvaluationResult(NotebookResult):
    """How good a model is on labelled photos.

    model          as it was named
    precision      of the model that ran: "fp32", "fp16", "int8"; "" for a lone file
    card           the model's description: labels, preprocessing, temperature
    images         the folder or list of photos
    root           the folder that the photos' names are relative to
    files          [N], the photos' names
    paths          [N], the photos themselves
    targets        int64 [N], the true classes, as indices into the labels
    probabilities  float32 [N, classes]
    ood_scores     float32 [N], how unlike the training photos; None: the model can't tell
    metrics        accuracy, accuracy_interval, photos, loss, macro_f1, balanced_accuracy,
                   calibration_error and, from 10 classes on, top5_accuracy
    classes        precision, recall, F1 and number of photos of each class
    failed         photo → why it could not be classified; these don't count
    unlabelled     folder, or label in a list, that is no label of the model → number of its photos;
                   nor do these
    trained_on     the photos that the model was trained on; None if the model does not list them
    seconds        wall time
    machine        packages and processor, name → text
    evidence       (photo's file, label) of several → what speaks for the label in each of them,
                   float32 [y, x], or None where that fails; None for a model without maps
    """

    model: str
    precision: str
    card: ModelCard
    images: str
    root: Path
    files: tuple[str, ...]
    paths: tuple[Path, ...]
    targets: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    ood_scores: NDArray[np.float32] | None
    metrics: Mapping[str, Any]
    classes: tuple[ClassMetrics, ...]
    failed: Mapping[str, str]
    unlabelled: Mapping[str, int]
    trained_on: tuple[str, ...] | None
    seconds: float
    machine: Mapping[str, str]
    evidence: (
        Callable[[Sequence[tuple[Path, str]]], Sequence[NDArray[np.float32] | None]] | None
    ) = None

    _page = "edgetl.evaluation.evaluation_reports:as_html"

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.card.labels

    @property
    def accuracy(self) -> float:
        """Share of the photos that are classified correctly, 0..1."""
        return float(self.metrics["accuracy"])

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Numbers of photos, int64 [classes, classes]: row = true class, column = predicted."""
        return confusion_matrix(self.probabilities, self.targets)

    @property
    def calibration(self) -> list[CalibrationPoint]:
        """The calibration curve: confidence and accuracy of 5 to 15 groups of photos.

        Each has as many photos; below 200 photos there is no group.
        """
        return calibration_curve(self.probabilities, self.targets)

    @cached_property
    def statement(self) -> tuple[StatementCheck, ...]:
        """What the model states about its answers, tested on these; () if it states nothing.

        If the photos are like those that it was measured on, at least one share is found not to
        hold in 5 % of all evaluations, at most.
        """
        if self.card.promises is None:
            return ()
        is_unknown = None
        if self.card.unknown is not None and self.ood_scores is not None:
            is_unknown = self.card.unknown.is_unknown(self.ood_scores)
        answers = LabelledAnswers(self.labels, self.probabilities, self.targets, is_unknown)
        return check_statement(self.card.promises, answers)

    @property
    def photos(self) -> list[EvaluatedPhoto]:
        """Every photo: the most confident mistakes first, the most confident hits last."""
        predicted, confidence = self.probabilities.argmax(1), self.probabilities.max(1)
        right = predicted == self.targets
        order = np.lexsort((np.where(right, confidence, -confidence), right))
        return [
            EvaluatedPhoto(
                self.files[row],
                self.labels[self.targets[row]],
                self.labels[predicted[row]],
                float(confidence[row]),
            )
            for row in order.tolist()
        ]

    @property
    def mistakes(self) -> list[EvaluatedPhoto]:
        """The photos that are classified wrongly, the most confident first."""
        return [photo for photo in self.photos if photo.label != photo.truth]

    @property
    def left_out(self) -> int:
        """Number of photos that don't count: those of ``failed`` and ``unlabelled``."""
        return len(self.failed) + sum(self.unlabelled.values())

    @property
    def warnings(self) -> list[str]:
        """What the figures don't cover, and why they may mislead; one sentence or two each."""
        found = []
        if lower := [check for check in self.statement if not check.holds]:
            shares = "; ".join(
                f"{check.stated.name} {check.found.share:.1%}, stated {check.stated.text}"
                for check in lower
            )
            found.append(
                f"Lower than the model states: {shares}. Are these photos like those that it was "
                "trained on?"
            )
        if self.trained_on:
            photos = len(self.trained_on)
            found.append(
                f"The model was trained on {photos:,} of these {len(self.files):,} photos, so it "
                f"will look better than it is: {enumerated(self.trained_on)}."
            )
        if self.unlabelled:
            found.append(unlabelled_warning(self.unlabelled, self.labels))
        if self.failed:
            photos = len(self.failed)
            reasons = enumerated([f"{file}: {reason}" for file, reason in self.failed.items()])
            found.append(
                f"{counted(photos, 'photo')} can't be classified and "
                f"{'is' if photos == 1 else 'are'} left out: {reasons}."
            )
        return found

    def __repr__(self) -> str:
        figures = f"accuracy={self.accuracy:.4f}, photos={len(self.files)}"
        return f"EvaluationResult({self.model!r}, {figures}, left_out={self.left_out})"
