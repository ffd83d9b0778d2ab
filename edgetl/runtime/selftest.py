"""Does this device answer as the trained model did? The golden photos through its own decoder, resize and runtime."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgetl.errors import BundleError, EdgetlError
from edgetl.runtime.bundle import Golden
from edgetl.runtime.images import read_image
from edgetl.runtime.preprocess import resize_image

if TYPE_CHECKING:
    from edgetl.runtime.predictor import Predictor

PROBABILITY_TOLERANCE = 1e-4

Stage = Literal["files", "decode", "resized", "logits", "probabilities"]


@dataclass(frozen=True)
class GoldenResult:
    """One golden photo. ``stage`` is the first that left the reference, None where all agree."""

    file: str
    stage: Stage | None
    detail: str
    max_probability_difference: float


@dataclass(frozen=True)
class SelfTest:
    """Outcome for all golden photos. ``passed`` only if every one agrees; ``stage`` is the first that failed."""

    results: tuple[GoldenResult, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        return all(result.stage is None for result in self.results)

    @property
    def stage(self) -> Stage | None:
        return next((result.stage for result in self.results if result.stage is not None), None)


def selftest(predictor: Predictor, *, tolerance: float = PROBABILITY_TOLERANCE) -> SelfTest:
    """Run every golden photo of ``predictor``'s bundle and compare.

    tolerance  largest difference of a probability, 0..1

    Raises BundleError if there is no bundle or it has no golden photos: nothing compared is no success.
    """
    if predictor.bundle is None or not predictor.bundle.golden:
        raise BundleError(
            predictor.path,
            "it has no golden photos to test with",
            "Export a bundle with golden photos (`edgetl export`, without `--golden 0`).",
        )
    results = tuple(_test(predictor, golden, tolerance) for golden in predictor.bundle.golden)
    damaged = tuple(GoldenResult(str(error.path), "files", error.reason, 0.0) for error in predictor.bundle.damage())
    return SelfTest((*damaged, *results), tolerance)


def _test(predictor: Predictor, golden: Golden, tolerance: float) -> GoldenResult:
    assert predictor.bundle is not None
    try:
        content = predictor.bundle.read(golden.file)
    except BundleError as error:
        return GoldenResult(golden.file, "files", error.reason, 0.0)
    try:
        image = read_image(content, max_pixels=predictor.max_pixels)
        prediction = predictor(content)
    except EdgetlError as error:
        return GoldenResult(golden.file, "decode", error.message, float("nan"))
    resized = resize_image(image, predictor.card.spec)
    if hashlib.sha256(resized.tobytes()).hexdigest() != golden.resized_sha256:
        return GoldenResult(golden.file, "resized", "its pixels after resize differ from the reference's", float("nan"))
    difference = float(np.abs(prediction.probabilities - np.asarray(golden.probabilities)).max())
    if not difference <= tolerance:  # also when it is not a number
        logits = float(np.abs(prediction.logits - np.asarray(golden.logits)).max())
        detail = f"logits differ by up to {logits:.3g}, probabilities by up to {difference:.3g}"
        return GoldenResult(golden.file, "logits", detail, difference)
    return GoldenResult(golden.file, None, "agrees", difference)
