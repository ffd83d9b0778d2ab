"""Classifies the photos of a unit and writes their part, in whatever process it runs."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgetl.cluster.cluster_job import ClusterJob, PartSummary
from edgetl.cluster.destination import Destination
from edgetl.cluster.part_file import PartFile, part_bytes
from edgetl.cluster.run_manifest import require_run
from edgetl.cluster.work_unit import WorkUnit
from edgetl.errors import DataError, ImageError, PredictionError
from edgetl.runtime.images.photo_list import ListedPhoto
from edgetl.runtime.images.photo_places import fetched, known_label, shard_photos
from edgetl.runtime.images.store import object_error, wait_for_object
from edgetl.runtime.images.stored_path import StoredPath, as_place, is_address
from edgetl.runtime.images.unreadable import UNREACHABLE
from edgetl.runtime.inference.prediction import Prediction, Result
from edgetl.runtime.inference.predictor import Predictor
from edgetl.runtime.results.records import as_file_record, plain_name
from edgetl.system.remote_store import cause_of

_OUTAGES = 3  # of a store, within one unit, that are waited for


class PartClassifier:
    """Writes parts.

    The same unit gives the same rows whenever and wherever it is repeated, and they replace what
    was written before. Rows that stand in a part that is there already are kept.
    """

    def __init__(self, job: ClusterJob, predictor: Predictor) -> None:
        self._job, self._predictor = job, predictor
        self._destination = Destination(job.destination)
        self._folders = tuple(map(as_place, job.label_folders))
        self._labels = frozenset(predictor.labels)

    def write(self, unit: WorkUnit) -> PartSummary:
        """Classify what has no row yet. Raises EdgetlError for what is no photo's fault."""
        existing = self._existing(unit.part)
        rows = existing.rows if existing else ()
        # What this run wrote is settled, too, where Ray has lost the summary and repeats the unit.
        settled = {row.source for row in rows if row.stands or not unit.was_there}
        replaced = {row.source for row in rows} - settled
        if unit.shard:
            is_done = not replaced
        else:
            missing = {plain_name(photo.source) for photo in unit.photos} - settled
            replaced, is_done = replaced & missing, not missing
        if existing and is_done:
            return existing.summary(unit.part, is_new=not unit.was_there)
        kept = existing.without(replaced) if existing else None
        failed = sum(row.error is not None for row in rows if row.source not in replaced)
        counts = Counter[str]()
        content = part_bytes(self._job.columns, kept, self._records(unit, settled, counts))
        # A worker can outlive its run, and must not write what the next one gives to another part.
        require_run(self._destination, self._job.run)
        self._destination.write(unit.part, content)
        return PartSummary(
            unit.part,
            photos=len(rows) - len(replaced) + counts["new"],
            failed=failed + counts["new"] - counts["classified"],
            new=counts["new"],
            classified=counts["classified"],
            labelled=counts["labelled"],
            correct=counts["correct"],
        )

    def _existing(self, part: str) -> PartFile | None:
        content = self._destination.read(part)
        if content is None:
            return None
        return PartFile(f"{self._destination}/{part}", content, self._job.columns)

    def _records(
        self, unit: WorkUnit, settled: set[str], counts: Counter[str]
    ) -> Iterator[dict[str, Any]]:
        """A record for each photo that is not in ``settled``, which is counted."""
        job = self._job
        for result, given in self._results(unit, settled):
            if isinstance(result, PredictionError):  # the worker's copy of the model has gone
                result = PredictionError(result.source, job.model, result.reason, result.hint)
            photo = as_place(result.source)
            truth = known_label(photo, given, self._folders, self._labels)
            counts["new"] += 1
            if isinstance(result, Prediction):
                counts["classified"] += 1
                counts["labelled"] += truth is not None
                counts["correct"] += truth == result.label
            yield as_file_record(
                result, job.model_id, truth, unknown_as=job.unknown_as, embeddings=job.embeddings
            )

    def _results(self, unit: WorkUnit, settled: set[str]) -> Iterator[tuple[Result, str | None]]:
        """(result, label that a list or shard gives); a store that is away is waited for."""
        done = set(settled)
        for outages in range(_OUTAGES + 1):
            away = []
            for result, given in self._classified(unit, done):
                if isinstance(result, ImageError) and result.reason == UNREACHABLE:
                    away.append((result, given))
                    continue
                done.add(plain_name(result.source))
                yield result, given
            if not away or outages == _OUTAGES:
                break
            if not _comes_back(unit.shard or away[0][0].source):
                break
        yield from away

    def _classified(self, unit: WorkUnit, done: set[str]) -> Iterator[tuple[Result, str | None]]:
        given: deque[str | None] = deque()

        def sources() -> Iterator[Path]:
            for photo in _photos(unit, done):
                given.append(photo.label)
                yield photo.path

        for result in self._predictor.batch(sources(), workers=self._job.workers):
            yield result, given.popleft()


def _photos(unit: WorkUnit, done: set[str]) -> Iterator[ListedPhoto]:
    """The photos of a unit but for those in ``done``, with their content if they are in a store."""
    if not unit.shard:
        listed = (
            ListedPhoto(as_place(photo.source), photo.source, photo.label, None, row)
            for row, photo in enumerate(unit.photos, 1)
            if plain_name(photo.source) not in done
        )
        yield from fetched(listed)
        return
    shard = as_place(unit.shard)
    try:
        for photo in shard_photos([shard], shard.parent, unit.columns, strict=False):
            if plain_name(os.fspath(photo.path)) not in done:
                yield photo
    except DataError as error:
        if error.__cause__ is None:  # not about reading it
            raise
        yield ListedPhoto(
            StoredPath.holding(shard, _reason(shard, error)), shard.name, None, None, 1
        )


def _reason(shard: Path, error: DataError) -> OSError:
    """Why a shard can't be opened, as it is said of a photo."""
    cause = error.__cause__
    if isinstance(cause, OSError) and not is_address(shard):
        return cause
    return object_error(os.fspath(shard), cause_of(cause or error))


def _comes_back(address: str) -> bool:
    """Wait for the store of a photo or shard, for some minutes. Whether it can be reached."""
    try:
        wait_for_object(address)
    except OSError:
        return False
    return True
