"""What earlier runs left at a destination: which photos have an answer, and in which part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from edgetl.cluster.cluster_job import PartSummary
from edgetl.cluster.destination import Destination
from edgetl.cluster.part_file import SourceRow, source_rows
from edgetl.cluster.work_unit import is_photos_part
from edgetl.runtime.results.result_file import source_digest
from edgetl.system.ordered_map import ordered_map

_READERS = 16  # parts that are read at a time


class EarlierRows:
    """The rows of parts that are there.

    parts  part → its summary, without the rows of ``twice``
    done   digests of photos with an answer, or an error that does not pass
    again  digest → the part in which its photo has an error that may pass
    twice  part → sources of rows in it whose photo has one in another part, too: two runs with
           other photos wrote here at the same time
    """

    def __init__(self, destination: Destination, parts: Iterable[str]) -> None:
        self.parts: dict[str, PartSummary] = {}
        self.done: set[bytes] = set()
        self.again: dict[bytes, str] = {}
        self.twice: defaultdict[str, set[str]] = defaultdict(set)
        for part, rows in _read(destination, parts):
            self.parts[part] = PartSummary(
                part, len(rows), sum(row.error is not None for row in rows)
            )
            if is_photos_part(part):  # the name of a shard decides its part: none is in two
                for row in rows:
                    self._add(part, row)

    def _add(self, part: str, row: SourceRow) -> None:
        digest = source_digest(row.source)
        if digest in self.done or (digest in self.again and not row.stands):
            self._drop(part, row.source, is_failed=row.error is not None)
        elif row.stands:
            if earlier := self.again.pop(digest, None):
                self._drop(earlier, row.source, is_failed=True)
            self.done.add(digest)
        else:
            self.again[digest] = part

    def _drop(self, part: str, source: str, *, is_failed: bool) -> None:
        self.twice[part].add(source)
        known = self.parts[part]
        self.parts[part] = replace(known, photos=known.photos - 1, failed=known.failed - is_failed)


def _read(destination: Destination, parts: Iterable[str]) -> Iterator[tuple[str, list[SourceRow]]]:
    """(part, its rows)"""

    def read(part: str) -> tuple[str, list[SourceRow]]:
        return part, source_rows(f"{destination}/{part}", destination.read(part) or b"")

    with ThreadPoolExecutor(_READERS, thread_name_prefix="edgetl-read") as pool:
        yield from ordered_map(pool, read, parts, _READERS)
