"""Photos done, of how many: an estimate as long as shards are unread."""

from __future__ import annotations

from edgetl.cluster.cluster_job import PartSummary
from edgetl.cluster.cluster_progress import ClusterProgress
from edgetl.cluster.work_unit import NamedPhoto, WorkUnit


def test_shards_count_as_many_photos_as_those_that_were_read():
    reported: list[tuple[str, int, int]] = []
    units = [WorkUnit(f"part-shard-{number}", f"{number}.tar") for number in range(4)]
    with ClusterProgress(lambda *values: reported.append(values), units) as progress:
        for number, photos in enumerate((10, 20, 30, 40)):
            progress.add(PartSummary(f"part-shard-{number}", photos, 0, photos))
    assert reported[0] == ("Starting workers on the first parts", 0, 0)
    counted = [values for values in reported if values[0] == "Classifying photos"]
    assert [values[1:] for values in counted] == [(10, 40), (30, 60), (60, 80), (100, 100)]


def test_parts_from_before_are_not_counted_as_classified():
    reported: list[tuple[str, int, int]] = []
    units = [
        WorkUnit(f"part-shard-{number}", f"{number}.tar", was_there=number < 2)
        for number in range(3)
    ]
    units.append(WorkUnit("part-photos-0", photos=(NamedPhoto("1.jpg", None),) * 5))
    with ClusterProgress(lambda *values: reported.append(values), units) as progress:
        progress.add(PartSummary("part-shard-0", 10))
        progress.add(PartSummary("part-shard-1", 10))
        progress.add(PartSummary("part-photos-0", 5, 0, 5))
        progress.add(PartSummary("part-shard-2", 8, 0, 8))
    assert [values for values in reported if not values[0].startswith("Starting")] == [
        ("Looking into earlier parts", 1, 2),
        ("Looking into earlier parts", 2, 2),
        ("Classifying photos", 5, 5),
        ("Classifying photos", 13, 13),
    ]
