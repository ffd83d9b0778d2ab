"""``edgetl.Predictor``, which decodes the photo's file itself.

    python -m edgetl.parity.runtimes.shipped_predictor MODEL PRECISION THREADS CUT

runs it for another process, which sends photos as stage_stream.py says. PRECISION is empty for a
lone model. CUT: the part of its ONNX file in front of ``normalized``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgetl.errors import ImageError
from edgetl.parity.check_photos import Photo, Unreadable
from edgetl.parity.runtimes.base import Runtime, Subject
from edgetl.parity.stage_stream import encode_stages, read_message, write_message
from edgetl.parity.stages import Refusal, Stages
from edgetl.runtime.bundle.tensor_names import IMAGES, NORMALIZED
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import resize_for_graph, resize_image
from edgetl.runtime.inference.predictor import Predictor
from edgetl.runtime.inference.session import CPU, open_session


class ShippedPredictor(Runtime):
    """Predictions come from ``Predictor``, the stages before from the two functions it calls."""

    name = "predictor"
    decodes = True
    follows_precision = True

    def __init__(self, subject: Subject) -> None:
        subject.onnx()  # raises if the bundle has none: the predictor runs nothing else
        precision = subject.precision if subject.bundle else None
        self._predictor = Predictor(subject.path, threads=subject.threads, precision=precision)
        self.exact_integers = self._predictor.provider == CPU

    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        return [predictor_stages(self._predictor, photo.path) for photo in photos]


def predictor_stages(predictor: Predictor, source: Path | bytes) -> Stages | Refusal:
    """What ``predictor`` makes of a photo's file."""
    has_maps = predictor.card.biases is not None
    try:
        prediction = predictor.explain(source) if has_maps else predictor(source)
    except ImageError as error:
        return Refusal(error.reason)
    score = None if prediction.ood_score is None else np.array(prediction.ood_score)
    image = read_image(source)
    return Stages(
        decoded=np.asarray(image),
        resized=resize_image(image, predictor.card.spec),
        logits=prediction.logits,
        probabilities=prediction.probabilities,
        embedding=prediction.embedding,
        ood_score=score,
        evidence=prediction.evidence,
    )


def main(model: str, precision: str, threads: str, cut: str) -> None:
    """Answer each message from stdin on stdout, until the first ends."""
    predictor = Predictor(model, precision=precision or None, threads=int(threads))
    preprocessing = open_session(Path(cut).read_bytes(), threads=int(threads), name=Path(cut))
    while (content := read_message(sys.stdin.buffer)) is not None:
        stages = predictor_stages(predictor, content)
        if isinstance(stages, Stages):
            images = resize_for_graph(read_image(content), predictor.card.spec)[np.newaxis]
            (normalized,) = preprocessing.run([NORMALIZED], {IMAGES: images})
            stages = replace(stages, normalized=normalized[0])
        write_message(sys.stdout.buffer, encode_stages(stages))


if __name__ == "__main__":
    main(*sys.argv[1:])
