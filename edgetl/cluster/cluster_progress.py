"""How far a run is, in photos: how many a shard holds is known only when it was read."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Self

from edgetl.cluster.cluster_job import PartSummary
from edgetl.cluster.work_unit import WorkUnit
from edgetl.system.progress import Progress

_STARTING = "Starting workers on the first parts"
_LOOKING, _CLASSIFYING = "Looking into earlier parts", "Classifying photos"
_TICK_SECONDS = 1.0


@contextmanager
def show_time(progress: Progress, step: str) -> Iterator[None]:
    """Show that time passes in a step of which nobody knows how long it takes."""
    is_over = threading.Event()

    def tick() -> None:
        while not is_over.is_set():
            progress(step, 0, 0)
            is_over.wait(_TICK_SECONDS)

    clock = threading.Thread(target=tick, daemon=True)
    clock.start()
    try:
        yield
    finally:
        is_over.set()
        clock.join()


class ClusterProgress:
    """Reports parts as they are done; a context manager, which shows until then that time passes.

    units  all that are given to workers
    """

    def __init__(self, progress: Progress, units: Sequence[WorkUnit]) -> None:
        self._report = progress
        self._named = sum(len(unit.photos) for unit in units)
        self._shards = {unit.part for unit in units if unit.shard}
        self._earlier = {unit.part for unit in units if unit.shard and unit.was_there}
        self._looked_into = self._done = self._read = self._of_shards = 0
        self._start = ExitStack()

    def __enter__(self) -> Self:
        self._start.enter_context(show_time(self._report, _STARTING))
        return self

    def __exit__(self, *_: object) -> None:
        self._start.close()

    def add(self, summary: PartSummary) -> None:
        """One more unit is done."""
        self._start.close()
        if summary.part in self._earlier and not summary.new:
            self._looked_into += 1
        self._done += summary.new
        if summary.part in self._shards and summary.new:
            self._read += 1
            self._of_shards += summary.new
        if not self._done:
            self._report(_LOOKING, self._looked_into, len(self._earlier))
            return
        left = len(self._shards) - self._looked_into - self._read
        expected = round(left * self._of_shards / self._read) if self._read else 0
        others = max(self._named, self._done - self._of_shards)
        self._report(_CLASSIFYING, self._done, self._of_shards + expected + others)
