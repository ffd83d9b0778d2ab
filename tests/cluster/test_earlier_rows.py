"""Which photos have a row from before, and which have two."""

from __future__ import annotations

from pathlib import Path

from edgetl.cluster.cluster_job import PartSummary
from edgetl.cluster.destination import Destination
from edgetl.cluster.earlier_rows import EarlierRows
from edgetl.cluster.part_file import part_bytes
from edgetl.runtime.images.unreadable import UNREACHABLE
from edgetl.runtime.results.records import columns
from edgetl.runtime.results.result_file import source_digest

PARTS = {
    "part-photos-1.parquet": {"a": None, "b": UNREACHABLE},
    "part-photos-2.parquet": {"b": None, "c": "it is damaged"},
    "part-photos-3.parquet": {"b": UNREACHABLE, "c": "it is damaged", "d": UNREACHABLE},
    "part-photos-4.parquet": {"d": UNREACHABLE},
    "part-shard-1.parquet": {"s/a": None},
}


def test_of_several_rows_of_a_photo_the_one_with_an_answer_counts(tmp_path: Path):
    place = Destination(str(tmp_path))
    for part, errors in PARTS.items():
        records = [{"source": name, "model": "1", "error": error} for name, error in errors.items()]
        place.write(part, part_bytes(columns(["cat"]), None, records))
    found = EarlierRows(place, PARTS)
    one, two, three, four, shard = PARTS
    assert found.done == {source_digest(name) for name in "abc"}
    assert found.again == {source_digest("d"): three}
    assert found.twice == {one: {"b"}, three: {"b", "c"}, four: {"d"}}
    assert list(found.parts.values()) == [
        PartSummary(one, photos=1, failed=0),
        PartSummary(two, photos=2, failed=1),
        PartSummary(three, photos=1, failed=1),
        PartSummary(four, photos=0, failed=0),
        PartSummary(shard, photos=1, failed=0),
    ]
