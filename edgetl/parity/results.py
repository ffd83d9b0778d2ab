"""What a check found: small frozen records with their verdicts; the reports write them out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgetl.errors import EdgetlError
from edgetl.system.environment import describe_machine
from edgetl.system.notebook import NotebookResult

Status = Literal["passed", "failed", "skipped", "shown"]
"""The verdict on a runtime; "shown": measured for information, without a verdict."""


@dataclass(frozen=True)
class Gap:
    """One photo at one stage: the value that is furthest from the reference.

    largest    absolute difference there; infinite for a wrong shape, a NaN or an infinity
    limit      the largest difference allowed for this photo at this stage
    problem    why it is infinite or must be 0, else None
    position   index of the value in the stage's array
    expected, found   the reference's value and the runtime's at that position
    differing, size   how many of the stage's values differ at all, and how many there are
    """

    photo: str
    largest: float
    limit: float
    problem: str | None = None
    position: tuple[int, ...] = ()
    expected: float | None = None
    found: float | None = None
    differing: int = 0
    size: int = 0

    @property
    def excess(self) -> float:
        """The difference in units of its limit; with a limit of 0, above 1 for any difference."""
        if self.limit > 0:
            return self.largest / self.limit
        return 1.0 + self.largest if self.largest > 0 else 0.0

    @property
    def passed(self) -> bool:
        return self.excess <= 1.0


@dataclass(frozen=True)
class StageResult:
    """One stage of one runtime over all photos.

    worst            the gap of the photo that is furthest from the reference, relative to its limit
    differing, size  values that differ at all, and values compared
    p999             99.9th percentile of the absolute differences (logits and probabilities only)
    beyond, allowed  how many photos are beyond their limits, and how many may be
    """

    stage: str
    worst: Gap
    differing: int
    size: int
    p999: float | None = None
    beyond: int = 0
    allowed: int = 0

    @property
    def passed(self) -> bool:
        return self.worst.passed or (not self.worst.problem and 0 < self.beyond <= self.allowed)

    def __str__(self) -> str:
        gap = self.worst
        if gap.problem:
            return f"{self.stage} of {gap.photo}: {gap.problem}"
        share = f"{self.differing:,} of {self.size:,} values differ, " if self.differing else ""
        count = f"; {self.beyond} photos beyond, {self.allowed} allowed" if self.allowed else ""
        digits = 9 if f"{gap.found:.6g}" == f"{gap.expected:.6g}" else 6
        return (
            f"{self.stage}: {share}most by {gap.largest:.3g} (limit {gap.limit:.3g}) "
            f"in {gap.photo} at {list(gap.position)}: {gap.found:.{digits}g} "
            f"where the reference has {gap.expected:.{digits}g}{count}"
        )


@dataclass(frozen=True)
class Flip:
    """A photo whose best class is not the reference's, or that only one of both calls unknown.

    margin  distance between the reference's two best probabilities, 0..1, or between its score and
            the threshold
    tie     the margin is within the tolerance, so that the flip does not count as a failure
    """

    photo: str
    expected: str
    found: str
    margin: float
    tie: bool = False


@dataclass(frozen=True)
class Comparison:
    """The reference's best class for a photo and a runtime's, with their probabilities, 0..1.

    distance  largest difference of a probability; infinite where it could not be computed
    """

    photo: str
    distance: float
    expected: str
    expected_confidence: float
    found: str
    found_confidence: float


@dataclass(frozen=True)
class Decisions:
    """The predictions of one runtime.

    compared         photos with probabilities from both the runtime and the reference
    worst            the photos whose probabilities are furthest from the reference's, in order
    kl_mean, kl_max  KL(reference || runtime) of the probabilities, in nats
    """

    compared: int
    flips: tuple[Flip, ...] = ()
    worst: tuple[Comparison, ...] = ()
    kl_mean: float = 0.0
    kl_max: float = 0.0

    @property
    def real_flips(self) -> tuple[Flip, ...]:
        return tuple(flip for flip in self.flips if not flip.tie)

    @property
    def ties(self) -> int:
        return len(self.flips) - len(self.real_flips)


@dataclass(frozen=True)
class RuntimeResult:
    """One runtime.

    reason     why it was skipped or failed
    departure  the first stage beyond its limit: one of STAGES, or "decision"
    left_out   how many further photos have formats that it does not decode
    cause      the mistake that would explain it (see comparison/diagnosis.py); empty if none fits
    """

    name: str
    status: Status
    reason: str = ""
    photos: int = 0
    stages: tuple[StageResult, ...] = ()
    decisions: Decisions = field(default_factory=lambda: Decisions(0))
    departure: str | None = None
    seconds: float = 0.0
    left_out: int = 0
    cause: str = ""

    @classmethod
    def judge(
        cls,
        name: str,
        photos: int,
        stages: Sequence[StageResult],
        decisions: Decisions,
        seconds: float,
        *,
        judged: bool = True,
        left_out: int = 0,
    ) -> RuntimeResult:
        """The result with its verdict: passed if every stage is within its limit, every photo has
        probabilities, and every flip is a tie. ``judged=False``: shown, without a verdict."""
        beyond = next((stage for stage in stages if not stage.passed), None)
        departure, reason = None, ""
        if beyond:
            departure, reason = beyond.stage, str(beyond)
        elif decisions.compared < photos:
            departure = "probabilities"
            reason = f"It gave no probabilities for {photos - decisions.compared} photos."
        elif decisions.real_flips:
            flip = decisions.real_flips[0]
            departure = "decision"
            reason = (
                f"decision: {flip.photo} is {flip.found!r}, "
                f"by the reference {flip.expected!r} (margin {flip.margin:.3g})"
            )
        status: Status = "shown" if not judged else "failed" if departure else "passed"
        return cls(
            name, status, reason, photos, tuple(stages), decisions, departure, seconds, left_out
        )

    def stage(self, name: str) -> StageResult | None:
        """The result at one stage, or None where the runtime doesn't show it."""
        return next((stage for stage in self.stages if stage.stage == name), None)


@dataclass(frozen=True)
class Finding:
    """A condition on a bundle as a whole that holds or not: its files, its labels, a limit."""

    name: str
    passed: bool
    message: str


@dataclass(frozen=True, kw_only=True)
class CheckResult(NotebookResult):
    """The comparison of an export with the trained network.

    bundle      as the user named it
    root        folder that the photos' names are relative to
    tolerance   on probabilities, 0..1
    photos      how many photos were compared; 0 if the bundle can't be opened
    unreadable  name → why, of photos that can't be decoded; every runtime has to refuse them
    machine     packages and processor, name → text
    """

    bundle: str
    root: Path
    precision: str = ""
    tolerance: float = math.nan
    findings: tuple[Finding, ...]
    runtimes: tuple[RuntimeResult, ...] = ()
    photos: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    machine: Mapping[str, str] = field(default_factory=describe_machine)

    _page = "edgetl.parity.reports.html_report:as_html"

    @property
    def passed(self) -> bool:
        """Whether the bundle is whole, and every runtime that ran agrees with the network."""
        return not self.failures

    @property
    def relabelled(self) -> int:
        """The most photos to which a passed runtime gives another label, ties included."""
        passed = (run for run in self.runtimes if run.status == "passed")
        return max((len(run.decisions.flips) for run in passed), default=0)

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(what failed, why), in the order of the report."""
        found = [(finding.name, finding.message) for finding in self.findings if not finding.passed]
        return found + [(run.name, run.reason) for run in self.runtimes if run.status == "failed"]


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy of both bundles on the photos of one class; ``new`` and ``old`` in 0..1."""

    label: str
    photos: int
    new: float
    old: float


@dataclass(frozen=True)
class Disagreement:
    """A photo to which two bundles give different labels.

    new_confidence, old_confidence  probability of each one's label, 0..1
    truth                           the label of its folder or its list, else None
    """

    photo: str
    new: str
    new_confidence: float
    old: str
    old_confidence: float
    truth: str | None = None


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of both bundles, 0..1, over the photos whose label is known."""

    photos: int
    new: float
    old: float
    classes: tuple[ClassAccuracy, ...]

    @property
    def drop(self) -> float:
        """Percentage points lost from old to new; negative where new is better.

        Computed from whole photos: 1 of 200 photos is 0.5 exactly, whatever the floats round to.
        """
        return 100.0 * round((self.old - self.new) * self.photos) / self.photos


@dataclass(frozen=True, kw_only=True)
class AgainstResult(NotebookResult):
    """The comparison of two bundles.

    photos       how many photos both models answered; 0 if a bundle is damaged
    unreadable   name → why, of photos that can't be decoded
    largest      largest difference of a probability, where both have the same labels, else None
    kl_mean      mean KL(old || new) in nats, where both have the same labels, else None
    unlabelled   photos without a label of the models, which don't count for the accuracy
    trained_on   the photos that one of the models was trained on, as far as bundles list them
    gates        conditions: "photos", and where a limit was given and photos were compared
                 "accuracy" and "probabilities"; only "bundle" where a bundle is damaged
    """

    new: str
    old: str
    root: Path
    photos: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)
    disagreements: tuple[Disagreement, ...] = ()
    largest: float | None = None
    kl_mean: float | None = None
    accuracy: Accuracy | None = None
    unlabelled: int = 0
    trained_on: tuple[str, ...] = ()
    gates: tuple[Finding, ...]
    seconds: float = 0.0
    machine: Mapping[str, str] = field(default_factory=describe_machine)

    _page = "edgetl.parity.reports.html_report:as_html"

    @property
    def passed(self) -> bool:
        """Whether every gate is met; without limits there is none but that both models answer."""
        return all(gate.passed for gate in self.gates)

    @property
    def limited(self) -> bool:
        """Whether a limit was given, on accuracy or on probabilities."""
        return len(self.gates) > 1

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(what failed, why)."""
        return [(gate.name, gate.message) for gate in self.gates if not gate.passed]

    @property
    def agreement(self) -> float:
        """Share of photos with the same label from both, 0..1; NaN if none was compared."""
        return 1.0 - len(self.disagreements) / self.photos if self.photos else math.nan


def error_text(error: Exception) -> str:
    """An exception on one line, with its type unless it is one of edgetl's own."""
    if isinstance(error, EdgetlError):
        return f"{error.message.rstrip('.')}. {error.hint}" if error.hint else error.message
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
