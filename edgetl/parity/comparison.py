"""Run the same photos through the trained network and every runtime of its export, and compare stage by stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgetl.errors import (
    BundleError,
    EdgetlError,
    MissingDependencyError,
    ParityError,
    RuntimeUnavailableError,
)
from edgetl.parity.bundle_findings import check_bundle_files
from edgetl.parity.check_photos import Photo, Unreadable, read_chunks
from edgetl.parity.diagnosis import explain
from edgetl.parity.distances import Tally
from edgetl.parity.results import CheckResult, Finding, RuntimeResult
from edgetl.parity.runtimes import RUNTIMES, Runtime, Subject
from edgetl.parity.runtimes.torch_reference import TorchReference
from edgetl.parity.stages import Refusal, Stages
from edgetl.parity.tolerances import Tolerance, default_tolerance
from edgetl.system.environment import describe_machine
from edgetl.system.machine import cores

Progress = Callable[[], object]
"""Called once a photo."""


_MOST_WORKERS = 4


def threads_each() -> int:
    """Threads for each runtime, so that those that work side by side share the cores."""
    return max(1, cores() // _workers())


def _workers() -> int:
    """How many runtimes work side by side: networks of one photo gain more from that than from many threads."""
    return min(cores(), _MOST_WORKERS)


def check(
    subject: Subject,
    photos: Sequence[Path],
    root: Path,
    *,
    runtimes: Sequence[str] = (),
    tolerance: float | None = None,
    progress: Progress = lambda: None,
) -> CheckResult:
    """Compare every runtime with the trained network on ``photos``.

    root       folder that the photos' names are relative to
    runtimes   names out of RUNTIMES, each of which must run; none: all that can run here
    tolerance  largest difference of a probability, 0..1; None: by precision (see tolerances.py)
    progress   called after each photo

    Raises ParityError if there is no photo to compare, or the trained network itself can't be run.
    """
    started = time.perf_counter()
    unknown = [name for name in runtimes if name not in RUNTIMES]
    if unknown:
        raise ParityError(f"There is no runtime {unknown[0]!r}.", f"Known: {', '.join(RUNTIMES)}.")
    if not photos:
        raise ParityError("There are no photos, so there is nothing to compare.")
    names = [name for name in RUNTIMES if name in runtimes] if runtimes else list(RUNTIMES)
    stated = tolerance if tolerance is not None else default_tolerance(subject.precision)
    with ThreadPoolExecutor(_workers(), thread_name_prefix="parity") as pool:
        runs = [
            _Run(name, subject, pool, tolerance, len(photos), asked=bool(runtimes))
            for name in names
        ]
        try:
            seen = _compare(subject, photos, root, runs, pool, progress)
        finally:
            for run in runs:
                run.close()
    if seen.compared == 0:
        raise ParityError(
            f"None of the {len(photos)} photos can be read, so there is nothing to compare.",
            "; ".join(f"{name}: {reason}" for name, reason in list(seen.unreadable.items())[:3]),
        )
    results = tuple(run.result() for run in runs if run.listed)
    return CheckResult(
        bundle=str(subject.path),
        root=root,
        precision=subject.precision,
        tolerance=stated,
        findings=(
            *check_bundle_files(subject),
            seen.reference_finding(),
            _compared_finding(results),
        ),
        runtimes=results,
        photos=seen.compared,
        unreadable=seen.unreadable,
        seconds=time.perf_counter() - started,
        machine=describe_machine(),
    )


def _compared_finding(results: Sequence[RuntimeResult]) -> Finding:
    """Where every runtime was skipped or only shown, nothing is known of the export."""
    judged = sum(run.status in ("passed", "failed") for run in results)
    return Finding(
        "compared",
        judged > 0,
        f"runtimes judged: {judged}" if judged else "no runtime ran that is judged",
    )


def unopened(bundle: Path, root: Path, error: BundleError) -> CheckResult:
    """The result for a bundle that can't be opened at all: nothing compared, and that is a failure."""
    finding = Finding("bundle", False, _words(error))
    machine = describe_machine()
    return CheckResult(str(bundle), root, "", math.nan, (finding,), (), 0, {}, 0.0, machine)


class _Seen:
    """What the reference saw."""

    def __init__(self) -> None:
        self.compared = 0
        self.unreadable: dict[str, str] = {}
        self._nonfinite: list[str] = []

    def add(self, photo: Photo | Unreadable, stages: Stages | Refusal) -> None:
        if isinstance(stages, Refusal):
            self.unreadable[photo.name] = stages.reason
            return
        self.compared += 1
        if stages.probabilities is None or not np.isfinite(stages.probabilities).all():
            self._nonfinite.append(photo.name)

    def reference_finding(self) -> Finding:
        """A network that answers NaN has no answer that others could agree with."""
        wrong = self._nonfinite
        which = (
            f"{wrong[0]} gives"
            if len(wrong) == 1
            else f"{len(wrong)} photos, such as {wrong[0]}, give"
            if wrong
            else ""
        )
        message = f"{which} NaN or infinity" if wrong else "its answers are finite"
        return Finding("reference", not wrong, message)


class _Run:
    """One runtime through the check: opening, photos, and what became of it. Its failures end here, in words."""

    def __init__(
        self,
        name: str,
        subject: Subject,
        pool: ThreadPoolExecutor,
        tolerance: float | None,
        photos: int,
        *,
        asked: bool,
    ) -> None:
        kind = RUNTIMES[name]
        precision = subject.precision if kind.follows_precision else "fp32"
        limit = tolerance if tolerance is not None else default_tolerance(precision)
        reference = self._card = subject.reference
        self._name, self._kind, self._asked = name, kind, asked
        self._tally = Tally(
            name,
            reference.labels,
            Tolerance(limit, reference.temperature),
            photos,
            judged=kind.judged,
        )
        self._seconds = 0.0
        self._ended: RuntimeResult | None = None
        self._runtime: Future[Runtime] = pool.submit(kind, subject)

    @property
    def listed(self) -> bool:
        """One that is only for information isn't missed where it can't run, unless it was asked for."""
        return self._kind.judged or self._asked or self._ended is None

    def start(
        self, photos: Sequence[Photo | Unreadable], pool: ThreadPoolExecutor
    ) -> Future[Sequence[Stages | Refusal]] | None:
        return pool.submit(self._work, photos) if self._ended is None else None

    def finish(
        self,
        photos: Sequence[Photo | Unreadable],
        reference: Sequence[Stages | Refusal],
        work: Future[Sequence[Stages | Refusal]] | None,
    ) -> None:
        """Compare what ``start`` began."""
        if work is None:
            return
        pairs = [(p, r) for p, r in zip(photos, reference, strict=True) if self._takes(p)]
        try:
            found = work.result()
            if len(found) != len(pairs):
                raise RuntimeError(f"it answered {len(found)} of {len(pairs)} photos")
            for (photo, expected), stages in zip(pairs, found, strict=True):
                self._tally.add(photo.name, expected, stages)
        except ParityError:
            raise
        except (RuntimeUnavailableError, MissingDependencyError) as error:
            self._ended = RuntimeResult(
                self._name, "failed" if self._asked else "skipped", _words(error)
            )
        except Exception as error:
            self._ended = RuntimeResult(self._name, "failed", _words(error))

    def result(self) -> RuntimeResult:
        result = self._ended or self._tally.result(self._seconds)
        sample = self._tally.sample(result.departure) if result.departure else None
        return (
            replace(result, cause=explain(result.departure, *sample, self._card))
            if result.departure and sample
            else result
        )

    def close(self) -> None:
        if self._runtime.cancel() or self._runtime.exception():
            return
        self._runtime.result().close()

    def _takes(self, photo: Photo | Unreadable) -> bool:
        return self._kind.decodes or isinstance(photo, Photo)

    def _work(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        runtime = (
            self._runtime.result()
        )  # opened before in the same pool, first in first out: it can't wait for ever
        started = time.perf_counter()
        found = runtime.run([photo for photo in photos if self._takes(photo)])
        self._seconds += time.perf_counter() - started
        return found


def _compare(
    subject: Subject,
    paths: Sequence[Path],
    root: Path,
    runs: Sequence[_Run],
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> _Seen:
    """Feed all photos to the reference and to every run."""
    seen = _Seen()
    reference = TorchReference(subject.network, subject.reference, subject.threads)
    for photos in read_chunks(paths, root, subject.reference.spec):
        readable = [photo for photo in photos if isinstance(photo, Photo)]
        truth = pool.submit(reference.run, readable)
        work = [run.start(photos, pool) for run in runs]
        try:
            answers = iter(truth.result())
        except Exception as error:
            raise ParityError(
                f"The trained network itself can't be run: {_words(error)}"
            ) from error
        expected = [
            next(answers) if isinstance(photo, Photo) else Refusal(photo.reason) for photo in photos
        ]
        for photo, stages in zip(photos, expected, strict=True):
            seen.add(photo, stages)
        for run, future in zip(runs, work, strict=True):
            run.finish(photos, expected, future)
        for _ in photos:
            progress()
    return seen


def _words(error: Exception) -> str:
    """An exception on one line, with its type where the type says something."""
    if isinstance(error, EdgetlError):
        return f"{error.message.rstrip('.')}. {error.hint}" if error.hint else error.message
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
