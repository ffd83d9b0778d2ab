"""Does this device give the trained model's answers?

The bundle's golden photos go through the device's own decoder, resize and runtime.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from edgetl.errors import BundleError, EdgetlError
from edgetl.runtime.bundle.bundle_folder import Bundle, Golden, GoldenAnswer, pixels_sha256
from edgetl.runtime.bundle.probability_tolerances import (
    PROBABILITY_TOLERANCES,
    SAME_MODEL_TOLERANCES,
    activation_limit,
    logits_limit,
    score_limit,
)
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import resize_image
from edgetl.runtime.inference.session import CPU

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgetl.runtime.bundle.model_card import ModelCard
    from edgetl.runtime.inference.prediction import Prediction

Stage = Literal[
    "files", "decode", "resized", "logits", "probabilities", "embedding", "ood_score", "evidence"
]


@dataclass(frozen=True)
class GoldenResult:
    """The result for one golden photo, or for another file of the bundle that is damaged.

    stage                       the first one that differs from the reference; None if none does
    max_probability_difference  0..1; None if an earlier stage failed
    """

    file: str
    stage: Stage | None
    detail: str
    max_probability_difference: float | None = None


@dataclass(frozen=True)
class SelfTest:
    """The results for all golden photos and all damaged files.

    passed     whether every golden photo agrees and no file is damaged
    stage      the first stage that failed, if any
    tolerance  largest difference of a probability that passes, 0..1
    """

    results: tuple[GoldenResult, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        return all(result.stage is None for result in self.results)

    @property
    def stage(self) -> Stage | None:
        return next((result.stage for result in self.results if result.stage is not None), None)


class TestedPredictor(Protocol):
    """What the self-test needs of a ``Predictor``, which runs it and so is not imported here."""

    path: Path
    bundle: Bundle | None
    card: ModelCard
    precision: str | None
    max_pixels: int

    @property
    def provider(self) -> str: ...

    def __call__(self, source: bytes, /) -> Prediction: ...

    def explain(self, source: bytes, /) -> Prediction: ...


def selftest(predictor: TestedPredictor, *, tolerance: float | None = None) -> SelfTest:
    """Run every golden photo of ``predictor``'s bundle and compare with the answers kept in it.

    tolerance  largest difference of a probability, 0..1; None: what the model's precision allows
               (``probability_tolerances.py``), and not one bit of a logit on a CPU where the bundle
               says that every CPU gives the same

    Raises BundleError if there is nothing to compare: no bundle, or no golden photos in it.
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
    exact = (
        tolerance is None
        and own
        and bundle.has_portable_bits(precision)
        and predictor.provider == CPU
    )
    if exact:  # what is computed from equal logits and features is float32
        tolerance = SAME_MODEL_TOLERANCES["fp32"]
    if tolerance is None:
        tolerance = (SAME_MODEL_TOLERANCES if own else PROBABILITY_TOLERANCES).get(precision)
    if tolerance is None:
        reason = f"no tolerance is known for {precision}"
        raise BundleError(bundle.path, reason, "Give one: selftest(tolerance=…).")
    # A damaged golden photo is found below, when it is its turn.
    golden_files = {bundle.path / golden.file for golden in bundle.golden}
    results = [
        GoldenResult(error.path.relative_to(bundle.path).as_posix(), "files", error.reason)
        for error in bundle.damage()
        if error.path not in golden_files
    ]
    for golden in bundle.golden:
        answer = golden.own_answers[precision] if own else golden.answer
        results.append(_test(predictor, bundle, golden, answer, tolerance, exact))
    return SelfTest(tuple(results), tolerance)


def _test(
    predictor: TestedPredictor,
    bundle: Bundle,
    golden: Golden,
    answer: GoldenAnswer,
    tolerance: float,
    exact: bool,
) -> GoldenResult:
    try:
        content = bundle.read(golden.file)
    except BundleError as error:
        return GoldenResult(golden.file, "files", error.reason)
    try:
        image = read_image(content, max_pixels=predictor.max_pixels)
        if pixels_sha256(np.asarray(image)) != golden.decoded_sha256:
            detail = "this decoder's pixels are not the reference's"
            return GoldenResult(golden.file, "decode", detail)
        if pixels_sha256(resize_image(image, predictor.card.spec)) != golden.resized_sha256:
            detail = "its pixels after the resize are not the reference's"
            return GoldenResult(golden.file, "resized", detail)
    except EdgetlError as error:
        return GoldenResult(golden.file, "decode", error.message)
    try:
        has_maps = predictor.card.biases is not None
        prediction = predictor.explain(content) if has_maps else predictor(content)
    except EdgetlError as error:
        return GoldenResult(golden.file, "logits", error.message)
    result = _compare(golden.file, prediction, answer, tolerance, predictor.card)
    if exact and result.stage is None and tuple(prediction.logits.tolist()) != answer.logits:
        return replace(result, stage="logits", detail=f"{result.detail}; not a bit is allowed")
    return result


def _compare(
    file: str, prediction: Prediction, answer: GoldenAnswer, tolerance: float, card: ModelCard
) -> GoldenResult:
    logits = _largest(prediction.logits, answer.logits)
    probabilities = _largest(prediction.probabilities, answer.probabilities)
    stage: Stage | None = None
    # "not <=" rather than ">": NaN fails, too.
    if not logits <= logits_limit(tolerance, card.temperature, answer.logits):
        stage = "logits"
    elif not probabilities <= tolerance:
        stage = "probabilities"
    detail = f"logits differ by up to {logits:.2g}, probabilities by up to {probabilities:.2g}"
    if card.unknown is not None and prediction.ood_score is not None:
        assert prediction.embedding is not None and answer.ood_score is not None
        embedding = _largest(prediction.embedding, answer.embedding)
        score = abs(prediction.ood_score - answer.ood_score)
        if stage is None and not embedding <= activation_limit(tolerance):
            stage = "embedding"
        elif stage is None and not score <= score_limit(tolerance, card.unknown.sensitivity):
            stage = "ood_score"
        detail += f", embedding by up to {embedding:.2g}, ood_score by {score:.2g}"
    if card.biases is not None and prediction.evidence is not None:
        # Their sum is all that is known of them here: a map a photo would fill the manifest.
        sums = _largest(prediction.evidence.sum((1, 2)) + card.biases, prediction.logits)
        if stage is None and not sums <= logits_limit(tolerance, card.temperature, answer.logits):
            stage = "evidence"
        detail += f", sums of evidence by up to {sums:.2g}"
    return GoldenResult(
        file, stage, detail, probabilities if math.isfinite(probabilities) else None
    )


def _largest(values: NDArray[Any], expected: Sequence[float] | NDArray[Any]) -> float:
    """The largest difference; infinite if there are not as many values."""
    if len(values) != len(expected):
        return math.inf
    return float(np.abs(values - np.asarray(expected)).max())
