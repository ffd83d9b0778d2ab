"""What a user names, as pieces of work."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
from helpers.shards import members, write_parquet, write_tars

from edgetl.cluster.work_unit import (
    NamedPhoto,
    WorkUnit,
    is_part,
    is_photos_part,
    photo_units,
    photos_outside_shards,
    shard_units,
)
from edgetl.runtime.images.photo_list import ListedPhoto
from edgetl.runtime.images.photo_places import StoredPlace


def named(count: int) -> list[NamedPhoto]:
    return [NamedPhoto(f"photos/{number}.jpg", None) for number in range(count)]


def test_each_photo_is_in_one_unit_and_the_same_photos_give_the_same_parts():
    for count in (1, 31, 200, 5_000, 64_321):
        units = photo_units(named(count), (), {})
        assert [photo for unit in units for photo in unit.photos] == named(count)
        assert len({unit.part for unit in units}) == len(units)
        assert all(is_photos_part(unit.part) and len(unit.photos) <= 1_000 for unit in units)
        assert units == photo_units(named(count), (), {})
    assert len(photo_units(named(5_000), (), {})) >= 64  # enough for some workers


def test_photos_that_are_done_are_left_out_and_the_others_stay_in_their_parts():
    photos = named(200)
    whole = photo_units(photos, (), {})
    done = {photo.digest for photo in (*whole[0].photos, *whole[2].photos[:5])}
    left = photo_units(photos, done, {})
    assert [unit.part for unit in left] == [unit.part for unit in whole[1:]]
    assert left[1] == WorkUnit(whole[2].part, photos=whole[2].photos[5:])


def test_a_photo_that_is_tried_again_is_written_to_the_part_that_it_is_in():
    photos = named(40)
    again = {photos[35].digest: "part-photos-older.parquet"}
    units = photo_units(photos, [photo.digest for photo in photos[:34]], again)
    by_part = {unit.part: unit.photos for unit in units}
    assert by_part.pop("part-photos-older.parquet") == (photos[35],)
    assert sum(by_part.values(), ()) == (photos[34], *photos[36:])


def test_a_unit_survives_its_way_to_a_worker_whatever_names_it_holds():
    odd = os.fsdecode(b"photos/\xff\xfe 1.jpg")
    unit = WorkUnit("part-photos-1.parquet", photos=(NamedPhoto(odd, "花"), NamedPhoto("b", None)))
    assert WorkUnit.from_json(unit.to_json()) == unit
    shard = WorkUnit("part-shard-1.parquet", "s3://bucket/000.tar", "label=CLASS")
    assert WorkUnit.from_json(shard.to_json()) == shard


def test_each_shard_is_a_unit_once(tmp_path: Path, cluster_photos: Path):
    pattern = write_tars(tmp_path, members(cluster_photos), 3)
    table = write_parquet(tmp_path / "photos.parquet", cluster_photos)
    places = [StoredPlace(name) for name in (pattern, f"{tmp_path}/*.tar", str(table))]
    units = shard_units(places)
    assert [Path(unit.shard).name for unit in units] == [
        *("000.tar", "001.tar", "002.tar", "photos.parquet")
    ]
    assert len({unit.part for unit in units}) == 4
    assert all(is_part(unit.part) and not is_photos_part(unit.part) for unit in units)
    assert photos_outside_shards(places) == []


def test_photos_named_twice_are_taken_once_with_the_label_of_their_list(
    cluster_photos: Path,
):
    path = cluster_photos / "plain/1.png"
    listed = ListedPhoto(path, "1.png", "two words", None, 1)
    found = photos_outside_shards([str(cluster_photos), listed, str(path)])
    assert len(found) == len({photo.source for photo in found}) == 200
    assert [photo.label for photo in found if photo.source == str(path)] == ["two words"]


def test_photos_of_a_store_are_listed_and_not_read():
    memory = fsspec.filesystem("memory")
    for name in ("a/1.png", "a/2.png", "a/notes.txt", "b/1.png"):
        memory.pipe(f"/listed/{name}", b"no photo")
    found = photos_outside_shards(
        [StoredPlace("memory://listed/a"), StoredPlace("memory://listed")]
    )
    assert [photo.source for photo in found] == [
        *("memory://listed/a/1.png", "memory://listed/a/2.png", "memory://listed/b/1.png")
    ]
