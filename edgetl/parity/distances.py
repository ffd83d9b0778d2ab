"""Measure how far a runtime is from the reference, photo by photo. Metrics and limits; the verdict is in results.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.parity.results import Comparison, Decisions, Flip, Gap, RuntimeResult, StageResult
from edgetl.parity.stages import STAGES, Refusal, Stages
from edgetl.parity.tolerances import Tolerance

_PERCENTILE_STAGES = ("logits", "probabilities")
_WORST_PHOTOS = 6


def distances(expected: NDArray[Any], found: NDArray[Any]) -> NDArray[np.float64]:
    """Absolute differences, ≥ 0; infinite wherever either side is NaN or infinite, equal or not."""
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return np.where(np.isfinite(difference), difference, np.inf)


def measure(expected: NDArray[Any], found: NDArray[Any], limit: float, photo: str) -> Gap:
    """How far ``found`` is from ``expected``, and where most. A wrong shape or a NaN or infinity is infinitely far."""
    if expected.shape != found.shape:
        shapes = f"shape {list(found.shape)} where the reference has {list(expected.shape)}"
        return Gap(
            photo, float("inf"), limit, problem=shapes, differing=expected.size, size=expected.size
        )
    distance = distances(expected, found)
    position = np.unravel_index(int(distance.argmax()), distance.shape)
    infinite = int(np.isinf(distance).sum())
    return Gap(
        photo=photo,
        largest=float(distance[position]),
        limit=limit,
        problem=f"{infinite} values are NaN or infinite" if infinite else None,
        position=tuple(int(index) for index in position),
        expected=float(expected[position]),
        found=float(found[position]),
        differing=int(np.count_nonzero(distance)),
        size=expected.size,
    )


def kl_divergence(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """KL(expected || found) of two probability vectors [classes], in nats, ≥ 0; infinite if ``found`` is not finite."""
    if expected.shape != found.shape or not (
        np.isfinite(expected).all() and np.isfinite(found).all()
    ):
        return float("inf")
    smallest = np.finfo(
        np.float32
    ).tiny  # a softmax in float32 may underflow to 0, which is no infinite surprise
    p, q = expected.astype(np.float64), np.maximum(found.astype(np.float64), smallest)
    return max(0.0, float(np.sum(p * np.log(np.maximum(p, smallest) / q))))


def margin(probabilities: NDArray[Any]) -> float:
    """Distance of the best probability from the second best, 0..1; 1 where there is one class."""
    if probabilities.size < 2:
        return 1.0
    second, best = np.partition(probabilities, -2)[-2:]
    return float(best) - float(second)


class Largest:
    """The values above the 99.9th percentile: all that it takes to know that percentile, in a thousandth of the memory.

    photos  at most so many parts will be added, all of one size
    count   values added so far
    """

    SHARE = 0.001

    def __init__(self, photos: int) -> None:
        self._photos, self.count = photos, 0
        self._kept = np.empty(0, np.float32)

    def add(self, values: NDArray[Any]) -> None:
        """Take in one photo's values, of any shape."""
        self.count += values.size
        self._kept = np.concatenate([self._kept, values.astype(np.float32).ravel()])
        needed = int(self.SHARE * self._photos * values.size) + 1
        if (
            self._kept.size > 2 * needed + values.size
        ):  # not at every photo: sorting costs more than keeping
            self._kept = np.partition(self._kept, -needed)[-needed:]

    def percentile(self) -> float:
        """The 99.9th percentile of all values: one of them, none in between, since some may be infinite."""
        above = int(self.SHARE * (self.count - 1))
        return float(np.sort(self._kept)[-1 - above])


class Tally:
    """Collects one runtime's photos. ``add`` each of them, at most ``photos``, then read ``result``."""

    def __init__(
        self,
        name: str,
        labels: Sequence[str],
        tolerance: Tolerance,
        photos: int,
        *,
        judged: bool = True,
    ) -> None:
        self._name, self._labels, self._tolerance, self._judged = name, labels, tolerance, judged
        self._worst: dict[str, Gap] = {}
        self._samples: dict[str, tuple[Stages, Stages]] = {}
        self._differing: dict[str, int] = defaultdict(int)
        self._sizes: dict[str, int] = defaultdict(int)
        self._largest = {stage: Largest(photos) for stage in _PERCENTILE_STAGES}
        self._flips: list[Flip] = []
        self._worst_answers: list[Comparison] = []
        self._divergences: list[float] = []
        self._photos: set[str] = set()

    def add(self, photo: str, reference: Stages | Refusal, found: Stages | Refusal) -> None:
        """Compare one photo. One that both refuse agrees, and counts as nothing compared."""
        if isinstance(reference, Refusal) or isinstance(found, Refusal):
            self._add_refusal(photo, reference, found)
            return
        self._photos.add(photo)
        for stage in STAGES:
            expected, values = reference.at(stage), found.at(stage)
            if expected is not None and values is not None:
                if self._add_stage(
                    stage, measure(expected, values, self._tolerance.limit(stage, reference), photo)
                ):
                    self._samples[stage] = reference, found
                if stage in self._largest and expected.shape == values.shape:
                    self._largest[stage].add(distances(expected, values))
        if reference.probabilities is not None and found.probabilities is not None:
            self._add_decision(photo, reference.probabilities, found.probabilities)

    def result(self, seconds: float) -> RuntimeResult:
        """Everything measured so far, judged. A runtime that showed no answer at all has failed."""
        if not self._worst:
            return RuntimeResult(
                self._name, "failed", reason="It compared no photo.", seconds=seconds
            )
        stages = tuple(self._stage(stage) for stage in STAGES if stage in self._worst)
        decisions = Decisions(
            compared=len(self._divergences),
            flips=tuple(self._flips),
            worst=tuple(self._worst_answers),
            kl_mean=float(np.mean(self._divergences)) if self._divergences else 0.0,
            kl_max=max(self._divergences, default=0.0),
        )
        return RuntimeResult.judge(
            self._name, len(self._photos), stages, decisions, seconds, judged=self._judged
        )

    def sample(self, stage: str) -> tuple[Stages, Stages] | None:
        """The reference's and the runtime's values of the photo that is worst at ``stage``."""
        return self._samples.get(stage)

    def _add_refusal(
        self, photo: str, reference: Stages | Refusal, found: Stages | Refusal
    ) -> None:
        if isinstance(reference, Refusal) and isinstance(found, Refusal):
            return
        if isinstance(found, Refusal):
            problem = f"refused ({found.reason}); the reference reads it"
        else:
            problem = "read, though the reference refuses it"
        self._photos.add(photo)
        self._add_stage(
            "decoded", Gap(photo, float("inf"), 0.0, problem=problem, differing=1, size=1)
        )

    def _add_stage(self, stage: str, gap: Gap) -> bool:
        """Whether this photo is the worst so far."""
        self._differing[stage] += gap.differing
        self._sizes[stage] += gap.size
        if stage in self._worst and gap.excess <= self._worst[stage].excess:
            return False
        self._worst[stage] = gap
        return True

    def _add_decision(self, photo: str, expected: NDArray[Any], found: NDArray[Any]) -> None:
        self._divergences.append(kl_divergence(expected, found))
        comparable = expected.shape == found.shape and bool(
            np.isfinite(expected).all() and np.isfinite(found).all()
        )
        best, other = int(expected.argmax()), int(found.argmax())
        if (
            comparable and best != other
        ):  # a NaN has no best class to speak of, and is infinitely far already
            gap = margin(expected)
            tie = gap <= self._tolerance.probabilities
            self._flips.append(Flip(photo, self._label(best), self._label(other), gap, tie=tie))
        distance = float(distances(expected, found).max()) if comparable else float("inf")
        answers = (
            self._label(best),
            float(expected[best]),
            self._label(other),
            float(found[other]),
        )
        self._worst_answers.append(Comparison(photo, distance, *answers))
        self._worst_answers.sort(key=lambda answer: -answer.distance)
        del self._worst_answers[_WORST_PHOTOS:]

    def _label(self, index: int) -> str:
        return self._labels[index] if index < len(self._labels) else f"output {index}"

    def _stage(self, stage: str) -> StageResult:
        largest = self._largest.get(stage)
        p999 = largest.percentile() if largest and largest.count else None
        return StageResult(
            stage, self._worst[stage], self._differing[stage], self._sizes[stage], p999
        )
