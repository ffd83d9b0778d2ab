"""Does this device answer as the trained model did? The golden photos through its own decoder, resize and runtime."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import BundleError, EdgetlError
from edgetl.runtime.bundle.bundle_folder import Bundle, Golden, GoldenAnswer, pixels_sha256
from edgetl.runtime.bundle.probability_tolerances import (
    PROBABILITY_TOLERANCES,
    SAME_MODEL_TOLERANCES,
    logits_limit,
)
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import resize_image

if TYPE_CHECKING:
    from edgetl.runtime.inference.predictor import Prediction, Predictor

Stage = Literal["files", "decode", "resized", "logits", "probabilities"]


@dataclass(frozen=True)
class GoldenResult:
    """One golden photo, or another file of the bundle that is damaged.

    stage                       the first that left the reference, None where all agree
    max_probability_difference  0..1; None where it did not get so far
    """

    file: str
    stage: Stage | None
    detail: str
    max_probability_difference: float | None = None


@dataclass(frozen=True)
class SelfTest:
    """Outcome for all golden photos. ``passed`` only if every one agrees; ``stage`` is the first that failed.

    tolerance  largest difference of a probability that passes
    """

    results: tuple[GoldenResult, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        return all(result.stage is None for result in self.results)

    @property
    def stage(self) -> Stage | None:
        return next((result.stage for result in self.results if result.stage is not None), None)


def selftest(predictor: Predictor, *, tolerance: float | None = None) -> SelfTest:
    """Run every golden photo of ``predictor``'s bundle and compare.

    tolerance  largest difference of a probability, 0..1; None: what the model's precision allows (tolerances.py)

    Raises BundleError if there is no bundle or it has no golden photos: nothing compared is no success.
    """
    bundle = predictor.bundle
    if bundle is None or not bundle.golden:
        raise BundleError(
            predictor.path,
            "it has no golden photos to test with",
            "Export a bundle with golden photos (`edgetl export`, without `--golden 0`).",
        )
    precision = predictor.precision or bundle.precisions[0]
    own = all(precision in golden.own_answers for golden in bundle.golden)
    limit = (
        (SAME_MODEL_TOLERANCES if own else PROBABILITY_TOLERANCES).get(precision)
        if tolerance is None
        else tolerance
    )
    if limit is None:
        raise BundleError(
            bundle.path,
            f"no tolerance is known for {precision}",
            "Give one: selftest(tolerance=…).",
        )
    answers = [golden.own_answers[precision] if own else golden.answer for golden in bundle.golden]
    tested = (_test(predictor, *pair, limit) for pair in zip(bundle.golden, answers, strict=True))
    return SelfTest((*_damaged(bundle), *tested), limit)


def _damaged(bundle: Bundle) -> Iterator[GoldenResult]:
    """Files that nobody compares below; a damaged golden photo is found when it is its turn."""
    golden = {bundle.path / golden.file for golden in bundle.golden}
    for error in bundle.damage():
        if error.path not in golden:
            yield GoldenResult(
                error.path.relative_to(bundle.path).as_posix(), "files", error.reason
            )


def _test(
    predictor: Predictor, golden: Golden, answer: GoldenAnswer, tolerance: float
) -> GoldenResult:
    assert predictor.bundle is not None
    try:
        content = predictor.bundle.read(golden.file)
    except BundleError as error:
        return GoldenResult(golden.file, "files", error.reason)
    try:
        image = read_image(content, max_pixels=predictor.max_pixels)
        if pixels_sha256(np.asarray(image)) != golden.decoded_sha256:
            return GoldenResult(
                golden.file, "decode", "this decoder's pixels are not the reference's"
            )
        if pixels_sha256(resize_image(image, predictor.card.spec)) != golden.resized_sha256:
            return GoldenResult(
                golden.file, "resized", "its pixels after the resize are not the reference's"
            )
    except EdgetlError as error:
        return GoldenResult(golden.file, "decode", error.message)
    try:
        return _compare(
            golden.file, predictor(content), answer, tolerance, predictor.card.temperature
        )
    except EdgetlError as error:
        return GoldenResult(golden.file, "logits", error.message)


def _compare(
    file: str, prediction: Prediction, answer: GoldenAnswer, tolerance: float, temperature: float
) -> GoldenResult:
    logits = _largest_difference(prediction.logits, answer.logits)
    probabilities = _largest_difference(prediction.probabilities, answer.probabilities)
    stage: Stage | None = None
    if not logits <= logits_limit(
        tolerance, temperature, answer.logits
    ):  # also when it is not a number
        stage = "logits"
    elif not probabilities <= tolerance:
        stage = "probabilities"
    detail = f"logits differ by up to {logits:.2g}, probabilities by up to {probabilities:.2g}"
    return GoldenResult(
        file, stage, detail, probabilities if math.isfinite(probabilities) else None
    )


def _largest_difference(values: NDArray[np.float32], reference: tuple[float, ...]) -> float:
    return float(np.abs(values - np.asarray(reference)).max())
