"""Run the same photos through the trained network and every runtime of its export, and compare."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from edgetl.errors import MissingDependencyError, ParityError, RuntimeUnavailableError
from edgetl.parity.check_photos import Photo, Unreadable, read_chunks
from edgetl.parity.comparison.bundle_findings import check_bundle_files
from edgetl.parity.comparison.diagnosis import explain
from edgetl.parity.comparison.distances import all_finite
from edgetl.parity.comparison.golden_bits import GoldenBits
from edgetl.parity.comparison.runtime_tally import RuntimeTally
from edgetl.parity.results import CheckResult, Finding, RuntimeResult, error_text
from edgetl.parity.runtimes import RUNTIMES, Runtime, Subject
from edgetl.parity.runtimes.torch_reference import TorchReference
from edgetl.parity.stages import LeftOut, Refusal, Stages
from edgetl.parity.tolerances import INT8_OUTLIERS, Tolerance, default_tolerance
from edgetl.system.machine import cores
from edgetl.system.message_text import counted
from edgetl.system.progress import Progress, ProgressCounter, no_progress

Photos = Sequence[Photo | Unreadable]
Answers = Sequence[Stages | Refusal]
Found = Sequence[Stages | Refusal | LeftOut]

_MAX_WORKERS = 4


def runtime_workers() -> int:
    """Runtimes that work side by side: for single photos that is faster than many threads each."""
    return min(cores(), _MAX_WORKERS)


def threads_each() -> int:
    """Threads for each runtime, so that those that work side by side share the cores."""
    return max(1, cores() // runtime_workers())


def compare_runtimes(
    subject: Subject,
    photos: Sequence[Path],
    root: Path,
    *,
    runtimes: Sequence[str] = (),
    tolerance: float | None = None,
    progress: Progress = no_progress,
) -> CheckResult:
    """Compare every runtime with the trained network on ``photos``.

    root       folder that the photos' names are relative to
    runtimes   names from RUNTIMES, each of which must run; none: all that can run here
    tolerance  largest difference of a probability, 0..1; None: by precision (see tolerances.py)
    progress   called after each photo

    Raises ParityError if there is no photo to compare, or the trained network itself can't be run.
    """
    started = time.perf_counter()
    names = _runtime_names(runtimes)
    if not photos:
        raise ParityError("There are no photos, so there is nothing to compare.")
    reference, golden = _Reference(subject), GoldenBits.of(subject)
    counter = ProgressCounter(progress, "Comparing photos", len(photos))
    with ThreadPoolExecutor(runtime_workers(), thread_name_prefix="parity") as pool:
        comparisons = [
            _RuntimeComparison(
                name, subject, pool, tolerance, len(photos), golden, asked=bool(runtimes)
            )
            for name in names
        ]
        try:
            for chunk in read_chunks(photos, root, subject.reference.spec):
                expected_work = pool.submit(reference.run, chunk)
                for comparison in comparisons:
                    comparison.start(chunk)
                expected = expected_work.result()
                for comparison in comparisons:
                    comparison.finish(chunk, expected)
                for _ in chunk:
                    counter()
        finally:
            for comparison in comparisons:
                comparison.close()
    reference.require_answers(len(photos))
    results = tuple(comparison.result() for comparison in comparisons if comparison.listed)
    return CheckResult(
        bundle=str(subject.path),
        root=root,
        precision=subject.precision,
        tolerance=default_tolerance(subject.precision) if tolerance is None else tolerance,
        findings=(*check_bundle_files(subject), reference.finding(), _compared_finding(results)),
        runtimes=results,
        photos=reference.photos,
        unreadable=reference.unreadable,
        seconds=time.perf_counter() - started,
    )


def _runtime_names(wanted: Sequence[str]) -> list[str]:
    """Those that are wanted, or all, in the order of RUNTIMES. Raises ParityError."""
    unknown = [name for name in wanted if name not in RUNTIMES]
    if unknown:
        raise ParityError(f"There is no runtime {unknown[0]!r}.", f"Known: {', '.join(RUNTIMES)}.")
    return [name for name in RUNTIMES if name in wanted or not wanted]


def _compared_finding(results: Sequence[RuntimeResult]) -> Finding:
    """Fails where every runtime was skipped or only shown: then nothing is known of the export."""
    compared = sum(run.status in ("passed", "failed") for run in results)
    message = f"{counted(compared, 'runtime')} compared"
    return Finding("compared", compared > 0, message if compared else "no runtime was compared")


class _Reference:
    """The trained network's answers, and a record of what it could not answer."""

    def __init__(self, subject: Subject) -> None:
        self._network = TorchReference(
            subject.network, subject.reference, subject.threads, subject.detector
        )
        self.photos = 0
        self.unreadable: dict[str, str] = {}
        self._not_finite: list[str] = []

    def run(self, photos: Photos) -> list[Stages | Refusal]:
        """One answer per photo, in order. Raises ParityError where the network fails."""
        try:
            stages = iter(self._network.run([p for p in photos if isinstance(p, Photo)]))
        except Exception as error:
            raise ParityError(
                f"The trained network itself can't be run: {error_text(error)}"
            ) from error
        answers: list[Stages | Refusal] = []
        for photo in photos:
            if isinstance(photo, Unreadable):
                self.unreadable[photo.name] = photo.reason
                answers.append(Refusal(photo.reason))
                continue
            self.photos += 1
            answer = next(stages)
            if answer.probabilities is None or not all_finite(answer.probabilities):
                self._not_finite.append(photo.name)
            answers.append(answer)
        return answers

    def require_answers(self, photos: int) -> None:
        """Raise ParityError if none of so many photos could be read."""
        if self.photos == 0:
            first = list(self.unreadable.items())[:3]
            raise ParityError(
                f"None of the {photos} photos can be read, so there is nothing to compare.",
                "; ".join(f"{name}: {reason}" for name, reason in first),
            )

    def finding(self) -> Finding:
        """Fails where the network gave NaN, which no runtime could agree with."""
        names = self._not_finite
        if not names:
            return Finding("reference", True, "no NaN or infinite value")
        which = names[0] if len(names) == 1 else f"{len(names)} photos, such as {names[0]}"
        return Finding("reference", False, f"NaN or infinite values for {which}")


def _open(kind: type[Runtime], subject: Subject, asked: bool) -> Runtime:
    if kind.on_request and not asked:
        raise RuntimeUnavailableError(
            "It takes long, so it only runs where it is asked for.",
            f"Ask for it with `--runtime {kind.name}`.",
        )
    return kind(subject)


class _RuntimeComparison:
    """One runtime: opens it, runs it on chunks of photos, and compares. Its exceptions end here."""

    def __init__(
        self,
        name: str,
        subject: Subject,
        pool: ThreadPoolExecutor,
        tolerance: float | None,
        photos: int,
        golden: GoldenBits | None,
        *,
        asked: bool,
    ) -> None:
        kind = RUNTIMES[name]
        precision = subject.precision if kind.follows_precision else "fp32"
        limit = tolerance if tolerance is not None else default_tolerance(precision)
        card, limits = subject.reference, subject.card.unknown
        self._name, self._kind, self._asked, self._card, self._pool = name, kind, asked, card, pool
        sensitivity = limits.sensitivity if limits else 0.0
        outliers = INT8_OUTLIERS if precision == "int8" else 0.0
        allowed = Tolerance(limit, card.temperature, sensitivity, outliers)
        self._tally = RuntimeTally(
            name, card.labels, allowed, photos, unknown=limits, judged=kind.judged
        )
        self._golden = golden
        self._golden_found: Found | None = None
        self._seconds = 0.0
        self._ended: RuntimeResult | None = None
        self._runtime: Future[Runtime] = pool.submit(_open, kind, subject, asked)
        self._work: Future[Found] | None = None

    @property
    def listed(self) -> bool:
        """Whether it belongs in the report: one that only gives information and can't run here
        does not, unless it was asked for."""
        return self._kind.judged or self._asked or self._ended is None

    def start(self, photos: Photos) -> None:
        """Begin to run ``photos``, unless the runtime has failed before."""
        if self._ended is None:
            self._work = self._pool.submit(self._run, photos)

    def finish(self, photos: Photos, expected: Answers) -> None:
        """Compare what ``start`` began with the reference's answers."""
        if self._ended is not None or self._work is None:
            return
        pairs = [
            (photo, answer)
            for photo, answer in zip(photos, expected, strict=True)
            if self._accepts(photo)
        ]
        try:
            found = self._work.result()
            if len(found) != len(pairs):
                raise RuntimeError(f"it answered {len(found)} of {len(pairs)} photos")
            for (photo, answer), stages in zip(pairs, found, strict=True):
                self._tally.add(photo.name, answer, stages)
            if self._golden and self._golden_found is not None:
                self._golden.compare(self._golden_found, self._tally)
                self._golden = None  # once is enough
        except ParityError:
            raise
        except (RuntimeUnavailableError, MissingDependencyError) as error:
            self._ended = RuntimeResult(self._name, "skipped", error_text(error))
        except Exception as error:
            self._ended = RuntimeResult(self._name, "failed", error_text(error))

    def result(self) -> RuntimeResult:
        """The verdict, with the likely cause of a failure."""
        result = self._ended or self._tally.result(self._seconds)
        if result.status == "skipped" and self._asked:
            result = replace(result, status="failed")
        sample = self._tally.sample(result.departure) if result.departure else None
        if result.departure is None or sample is None:
            return result
        return replace(result, cause=explain(result.departure, *sample, self._card))

    def close(self) -> None:
        if not self._runtime.cancel() and not self._runtime.exception():
            self._runtime.result().close()

    def _accepts(self, photo: Photo | Unreadable) -> bool:
        return self._kind.decodes or isinstance(photo, Photo)

    def _run(self, photos: Photos) -> Found:
        # It was opened in this pool, which starts work in order, so waiting can't lock up the pool.
        runtime = self._runtime.result()
        started = time.perf_counter()
        found = runtime.run([photo for photo in photos if self._accepts(photo)])
        if self._golden and self._golden_found is None:
            self._golden_found = self._golden.run(runtime)
        self._seconds += time.perf_counter() - started
        return found
