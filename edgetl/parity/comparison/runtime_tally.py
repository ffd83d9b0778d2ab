"""Collects the distances of one runtime from the reference, photo by photo."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.exporting.export_result import MIN_UNKNOWN_AGREEMENT
from edgetl.parity.comparison.distances import (
    Percentile999,
    all_finite,
    distances,
    kl_divergence,
    margin,
    measure,
)
from edgetl.parity.results import Comparison, Decisions, Flip, Gap, RuntimeResult, StageResult
from edgetl.parity.stages import STAGES, LeftOut, Refusal, Stages
from edgetl.parity.tolerances import Tolerance
from edgetl.runtime.bundle.unknown_limits import UnknownLimits

_PERCENTILE_STAGES = ("logits", "probabilities")
_WORST_PHOTOS = 6
_MANY = 10  # photos on which a share of other verdicts means something


class RuntimeTally:
    """``add`` every photo, at most ``photos`` of them, then read ``result``."""

    def __init__(
        self,
        name: str,
        labels: Sequence[str],
        tolerance: Tolerance,
        photos: int,
        *,
        unknown: UnknownLimits | None = None,
        judged: bool = True,
    ) -> None:
        """``unknown``: what scores mean; None: there are none."""
        self._unknown = unknown
        self._name, self._labels, self._tolerance, self._judged = name, labels, tolerance, judged
        self._photos: set[str] = set()
        self._left_out = 0
        self._worst: dict[str, Gap] = {}
        self._samples: dict[str, tuple[Stages, Stages]] = {}
        self._beyond: dict[str, int] = defaultdict(int)
        self._differing: dict[str, int] = defaultdict(int)
        self._sizes: dict[str, int] = defaultdict(int)
        self._percentiles = {stage: Percentile999(photos) for stage in _PERCENTILE_STAGES}
        self._flips: list[Flip] = []
        self._unknown_flips: list[Flip] = []
        self._verdicts = 0
        self._comparisons: list[Comparison] = []
        self._divergences: list[float] = []

    def add(
        self, photo: str, reference: Stages | Refusal, found: Stages | Refusal | LeftOut
    ) -> None:
        """Compare one photo. One that both refuse is in agreement, and not counted as compared."""
        if isinstance(found, LeftOut):
            self._left_out += 1
            return
        if isinstance(reference, Refusal):
            if not isinstance(found, Refusal):
                self.add_refusal(photo, "read, though the reference refuses it")
            return
        if isinstance(found, Refusal):
            self.add_refusal(photo, f"refused ({found.reason}); the reference reads it")
            return
        self._photos.add(photo)
        for stage in STAGES:
            expected, values = reference.at(stage), found.at(stage)
            if expected is None or values is None:
                continue
            limit = self._tolerance.limit(stage, reference)
            if self._add_gap(stage, measure(expected, values, limit, photo)):
                self._samples[stage] = reference, found
            if stage in self._percentiles and expected.shape == values.shape:
                self._percentiles[stage].add(distances(expected, values))
        if reference.probabilities is not None and found.probabilities is not None:
            self._add_decision(photo, reference.probabilities, found.probabilities)
        if reference.ood_score is not None and found.ood_score is not None:
            self._add_unknown(photo, float(reference.ood_score), float(found.ood_score))

    def add_own(
        self, stage: str, photo: str, expected: NDArray[Any], found: NDArray[Any], limit: float
    ) -> None:
        """Compare values with the model's own where it was exported, not with the network's."""
        gap = measure(expected, found, limit, photo)
        if not gap.passed:
            problem = f"off by {gap.largest:.2g} from what this model gives elsewhere"
            self._add_gap(stage, replace(gap, problem=gap.problem or problem))
            self._photos.add(photo)
            self._samples.pop(stage, None)

    def add_refusal(self, photo: str, problem: str) -> None:
        """Record a photo that only one of the two could read."""
        self._photos.add(photo)
        self._add_gap("decoded", Gap(photo, float("inf"), 0.0, problem, differing=1, size=1))

    def result(self, seconds: float) -> RuntimeResult:
        """All photos so far, with the verdict: failed if there was nothing to compare."""
        if not self._worst and self._left_out:
            reason = "No photo is of a format that it decodes."
            return RuntimeResult(self._name, "skipped", reason, left_out=self._left_out)
        if not self._worst:
            return RuntimeResult(self._name, "failed", "It compared no photo.", seconds=seconds)
        stages = []
        for stage in STAGES:
            if stage in self._worst:
                percentile = self._percentiles.get(stage)
                p999 = percentile.value() if percentile and percentile.count else None
                worst, differing = self._worst[stage], self._differing[stage]
                beyond, allowed = self._beyond[stage], self._allowed_beyond(stage)
                size = self._sizes[stage]
                stages.append(StageResult(stage, worst, differing, size, p999, beyond, allowed))
        decisions = Decisions(
            compared=len(self._divergences),
            flips=self._all_flips(),
            worst=tuple(self._comparisons),
            kl_mean=float(np.mean(self._divergences)) if self._divergences else 0.0,
            kl_max=max(self._divergences, default=0.0),
        )
        return RuntimeResult.judge(
            self._name,
            len(self._photos),
            stages,
            decisions,
            seconds,
            judged=self._judged,
            left_out=self._left_out,
        )

    def sample(self, stage: str) -> tuple[Stages, Stages] | None:
        """The reference's and the runtime's values of the photo that is worst at ``stage``."""
        return self._samples.get(stage)

    def _add_gap(self, stage: str, gap: Gap) -> bool:
        """Whether this photo is the worst so far."""
        self._beyond[stage] += not gap.passed
        self._differing[stage] += gap.differing
        self._sizes[stage] += gap.size
        if stage in self._worst and gap.excess <= self._worst[stage].excess:
            return False
        self._worst[stage] = gap
        return True

    def _add_decision(self, photo: str, expected: NDArray[Any], found: NDArray[Any]) -> None:
        self._divergences.append(kl_divergence(expected, found))
        comparable = expected.shape == found.shape and all_finite(expected, found)
        best, other = int(expected.argmax()), int(found.argmax())
        labels = self._label(best), self._label(other)
        if comparable and best != other:  # NaN has no best class; its stage has failed
            gap = margin(expected)
            tie = gap <= self._tolerance.probabilities
            self._flips.append(Flip(photo, *labels, gap, tie=tie))
        distance = float(distances(expected, found).max()) if comparable else float("inf")
        comparison = Comparison(
            photo, distance, labels[0], float(expected[best]), labels[1], float(found[other])
        )
        self._comparisons.append(comparison)
        self._comparisons.sort(key=lambda one: -one.distance)
        del self._comparisons[_WORST_PHOTOS:]

    def _add_unknown(self, photo: str, expected: float, found: float) -> None:
        if (limits := self._unknown) is None:
            return
        self._verdicts += 1
        before, after = limits.is_unknown([expected, found])
        if before == after:
            return
        words = ("known", "unknown") if after else ("unknown", "known")
        gap = abs(expected - limits.threshold)
        self._unknown_flips.append(Flip(photo, *words, gap, tie=gap <= self._tolerance.verdict))

    def _allowed_beyond(self, stage: str) -> int:
        return self._tolerance.photos_beyond(stage, len(self._photos))

    def _all_flips(self) -> tuple[Flip, ...]:
        """Those of labels, and those of verdicts, which are no ties where there are many."""
        flips = self._unknown_flips
        if sum(not flip.tie for flip in flips) <= self._allowed_beyond("ood_score"):
            flips = [replace(flip, tie=True) for flip in flips]
        agreeing = self._verdicts - len(flips)
        if self._verdicts >= _MANY and agreeing < MIN_UNKNOWN_AGREEMENT * self._verdicts:
            flips = [replace(flip, tie=False) for flip in flips]
        return (*self._flips, *flips)

    def _label(self, index: int) -> str:
        return self._labels[index] if index < len(self._labels) else f"output {index}"
