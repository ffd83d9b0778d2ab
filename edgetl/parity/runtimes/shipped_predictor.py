"""``edgetl.Predictor``, which decodes the photo's file itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgetl.errors import ImageError
from edgetl.parity.check_photos import Photo, Unreadable
from edgetl.parity.runtimes.base import Runtime, Subject
from edgetl.parity.stages import Refusal, Stages
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import resize_image
from edgetl.runtime.inference.predictor import Predictor


class ShippedPredictor(Runtime):
    """Predictions come from ``Predictor``, the stages before from the two functions it calls."""

    name = "predictor"
    decodes = True
    follows_precision = True

    def __init__(self, subject: Subject) -> None:
        subject.onnx()  # raises if the bundle has none: the predictor runs nothing else
        precision = subject.precision if subject.bundle else None
        self._predictor = Predictor(subject.path, threads=subject.threads, precision=precision)
        has_maps = subject.card.biases is not None
        self._predict = self._predictor.explain if has_maps else self._predictor

    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        return [self._classify(photo) for photo in photos]

    def _classify(self, photo: Photo | Unreadable) -> Stages | Refusal:
        try:
            prediction = self._predict(photo.path)
        except ImageError as error:
            return Refusal(error.reason)
        score = None if prediction.ood_score is None else np.array(prediction.ood_score)
        image = read_image(photo.path)
        return Stages(
            decoded=np.asarray(image),
            resized=resize_image(image, self._predictor.card.spec),
            logits=prediction.logits,
            probabilities=prediction.probabilities,
            embedding=prediction.embedding,
            ood_score=score,
            evidence=prediction.evidence,
        )
