"""The accuracy of a reduced-precision network on validation photos, beside the float32 one's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from scipy.special import softmax

from edgetl.errors import ExportError
from edgetl.exporting.export_result import AccuracyComparison
from edgetl.exporting.precision.normalized_photos import NormalizedPhotos
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.tensor_names import LOGITS, NORMALIZED
from edgetl.runtime.inference.session import open_session
from edgetl.system.progress import Progress, no_progress, track

_UNSURE = -2


class AccuracyEvaluator:
    """Compares networks (``normalized`` → ``logits``) with ``network`` on labelled photos.

    validation  paths and label indices, all of which are used

    Raises ExportError without photos, ImageError for one that can't be read.
    """

    def __init__(
        self,
        network: onnx.ModelProto,
        card: ModelCard,
        validation: Sequence[tuple[Path, int]],
        progress: Progress = no_progress,
    ) -> None:
        if not validation:
            raise ExportError("There are no validation photos to measure the accuracy on.")
        self._card, self._classes = card, card.labels
        self._photos = NormalizedPhotos([path for path, _ in validation], card.spec)
        self._labels = np.array([label for _, label in validation])
        self._progress = progress
        promises = card.promises
        rules = [promises.about(label) for label in card.labels] if promises else []
        self._thresholds = [rule.threshold if rule else 0.0 for rule in rules] if any(rules) else []
        self._fp32_predictions, self._fp32_sure = self._predictions(network, "fp32")

    def evaluate(
        self, network: onnx.ModelProto, name: str, float_layers: Sequence[str] = ()
    ) -> AccuracyComparison:
        """Run ``network``, which the progress calls ``name``, on every photo and compare."""
        predictions, sure = self._predictions(network, name)
        correct, fp32_correct = (
            answers == self._labels for answers in (predictions, self._fp32_predictions)
        )
        masks = ((label, self._labels == index) for index, label in enumerate(self._classes))
        return AccuracyComparison(
            photos=len(predictions),
            accuracy=float(correct.mean()),
            fp32_accuracy=float(fp32_correct.mean()),
            agreement=float((predictions == self._fp32_predictions).mean()),
            drop=_accuracy_drop(fp32_correct, correct),
            class_drops={
                label: _accuracy_drop(fp32_correct[mask], correct[mask])
                for label, mask in masks
                if mask.any()
            },
            float_layers=tuple(float_layers),
            sure_agreement=float((sure == self._fp32_sure).mean()) if self._thresholds else None,
        )

    def _predictions(
        self, network: onnx.ModelProto, name: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(index of each photo's highest logit, the same with _UNSURE where that is not sure).

        -1, which is no label, where a logit is not finite.
        """
        step = f"Measuring the accuracy of {name}"
        logits = run_network(network, track(self._photos, len(self._photos), step, self._progress))
        predictions = np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1)
        if not self._thresholds:
            return predictions, predictions
        confidences = softmax(logits / self._card.temperature, axis=1).max(1)
        is_sure = confidences >= np.array(self._thresholds)[predictions]
        return predictions, np.where(is_sure, predictions, _UNSURE)


def run_network(
    network: onnx.ModelProto, photos: Iterable[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Logits float32 [N, classes] of normalized photos [1, 3, h, w]."""
    session = open_session(network.SerializeToString(), providers="cpu")
    return np.concatenate([session.run([LOGITS], {NORMALIZED: photo})[0] for photo in photos])


def _accuracy_drop(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> float:
    """In percentage points, from whole numbers of correct answers.

    1 of 200 photos is exactly 0.5; a difference of two rounded accuracies could be slightly more.
    """
    return 100 * int(before.sum() - after.sum(dtype=np.int64)) / len(after)
