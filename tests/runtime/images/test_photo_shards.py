"""Shards: what is in them, in whose order, and what happens where they are damaged."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from helpers.pictures import photo
from helpers.shards import members, write_parquet, write_tar, write_tars

from edgetl.errors import DataError
from edgetl.runtime.images.photo_list import GUESSED_COLUMNS
from edgetl.runtime.images.photo_places import photos_folder, photos_in, stored_photos
from edgetl.runtime.images.photo_shards import is_shard, read_shard, shards_of
from edgetl.runtime.images.stored_path import FileSpan, StoredPath


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cats and three dogs."""
    folder = tmp_path_factory.mktemp("pets")
    for name, count in (("cat", 4), ("dog", 3)):
        (folder / name).mkdir()
        for number in range(count):
            photo(number, 20 + number, 16).save(folder / name / f"{number}.png")
    return folder


def contents(pets: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(pets.glob("*/*"))]


def read(place: Path | str, **options: object) -> list[tuple[str, str | None, bytes]]:
    found = photos_in(place, **options)  # type: ignore[arg-type]
    return [(listed.name, listed.label, listed.path.read_bytes()) for listed in found]


@pytest.mark.parametrize("label", ["cls", "txt", "json"])
@pytest.mark.parametrize("name", ["pets.tar", "pets.tar.gz", "pets.tgz"])
def test_a_tar_shard_has_the_photos_and_their_labels(pets, tmp_path, name, label):
    shard = write_tar(tmp_path / name, members(pets, label=label))
    found = read(shard)
    assert [content for *_, content in found] == contents(pets)
    assert [label for _, label, _ in found] == ["cat"] * 4 + ["dog"] * 3
    assert found[0][0] == f"{name}/0000.png" and photos_folder(shard) == tmp_path


def test_photos_of_an_uncompressed_shard_stay_where_they_are(pets, tmp_path):
    shard = write_tar(tmp_path / "pets.tar", members(pets))
    for listed in photos_in(shard):
        assert isinstance(listed.path, StoredPath)
        assert isinstance(listed.path.content, FileSpan) and listed.path.content.file == shard


def test_what_was_unpacked_goes_with_the_last_photo(pets, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    shard = write_tar(tmp_path / "pets.tgz", members(pets))
    found = photos_in(shard)
    assert len(list(tmp_path.glob("tmp/.edgetl-photos-*/photos"))) == 1
    last = found.pop()
    del found
    assert last.path.read_bytes() == contents(pets)[-1]
    del last
    assert list((tmp_path / "tmp").iterdir()) == []


def test_photos_of_hugging_face(pets, tmp_path):
    found = read(write_parquet(tmp_path / "pets.parquet", pets))
    assert [content for *_, content in found] == contents(pets)
    assert [label for _, label, _ in found] == ["cat"] * 4 + ["dog"] * 3
    assert found[5][0] == "pets.parquet/00000006-1.png"


def test_parquet_with_plain_bytes_and_columns_of_other_names(pets, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {"thumb": [b"", None], "jpeg": [contents(pets)[0], None], "kind": ["cat", None]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    columns = "path=jpeg,label=kind"
    (first, second) = photos_in(tmp_path / "a.parquet", columns=columns)
    assert (first.name, first.label) == ("a.parquet/00000001.png", "cat")
    assert first.path.read_bytes() == contents(pets)[0]
    with pytest.raises(OSError, match="holds no photo"):
        second.path.read_bytes()
    assert second.label is None


def test_a_parquet_file_of_paths_is_still_a_list(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"path": ["1.png"], "label": ["cat"]}), tmp_path / "list.parquet")
    assert not is_shard(tmp_path / "list.parquet")


def test_json_gives_label_and_part_under_chosen_keys(pets, tmp_path):
    note = json.dumps({"kind": "cat", "set": "val", "label": "other"}).encode()
    shard = write_tar(tmp_path / "a.tar", [[("1.png", contents(pets)[0]), ("1.json", note)]])
    (found,) = photos_in(shard, columns="label=kind")
    assert (found.label, found.split) == ("cat", "val")


def test_a_label_goes_with_its_photo_where_names_have_dots(tmp_path):
    pets = [(f"pet.{number}.png", b"x") for number in (1, 2)]
    pets += [("pet.2.cls", b"dog"), ("pet.1.cls", b"cat")]
    cow = [("0.left.png", b"x"), ("0.right.png", b"x"), ("0.json", b'{"label": "cow"}')]
    shard = write_tar(tmp_path / "a.tar", [pets, cow])
    names = {"pet.1.png": "cat", "pet.2.png": "dog", "0.left.png": "cow", "0.right.png": "cow"}
    assert {Path(name).name: label for name, label, _ in read(shard)} == names


def test_photos_before_the_damage_are_there_where_names_have_dots(pets, tmp_path):
    photos = [[(f"pet.{n}.png", content)] for n, content in enumerate(contents(pets))]
    shard = write_tar(tmp_path / "a.tar", photos)
    *_, last = photos_in(shard)
    assert isinstance(last.path, StoredPath) and isinstance(last.path.content, FileSpan)
    *whole, _ = stored_photos(cut(shard, last.path.content.offset + 9), strict=False)
    assert [found.path.read_bytes() for found in whole] == contents(pets)[:6]


def test_a_photo_without_a_label_has_none(pets, tmp_path):
    shard = write_tar(tmp_path / "a.tar", [[("1.png", contents(pets)[0])]])
    assert [label for _, label, _ in read(shard)] == [None]


def test_names_can_not_leave_the_shard_and_hidden_members_are_left_out(tmp_path):
    names = ["./a/1.png", "//etc/2.png", "../../3.png", "a/._1.png", "__MACOSX/._2.png", "no.bin"]
    shard = write_tar(tmp_path / "a.tar", [[(name, b"x")] for name in names])
    assert [name for name, *_ in read(shard)] == ["a.tar/a/1.png", "a.tar/etc/2.png", "a.tar/3.png"]


def test_patterns_stand_for_shards_in_order(pets, tmp_path):
    pattern = write_tars(tmp_path / "shards", members(pets), 3)
    assert pattern.endswith("/{000..002}.tar")
    assert [shard.name for shard in shards_of(pattern)] == ["000.tar", "001.tar", "002.tar"]
    assert [shard.name for shard in shards_of(tmp_path / "shards/{002,000}.tar")] == [
        "002.tar",
        "000.tar",
    ]
    for place in (pattern, tmp_path / "shards/*.tar", tmp_path / "*/00?.tar"):
        assert is_shard(place)
        assert [content for *_, content in read(place)] == contents(pets)
    assert photos_folder(pattern) == tmp_path / "shards"
    assert photos_folder(tmp_path / "*/{a,b}/0.tar") == tmp_path
    with pytest.raises(DataError, match="There is no"):
        photos_in(tmp_path / "none/*.tar")
    with pytest.raises(DataError, match=r"007\.tar can't be read: No such file"):
        photos_in(tmp_path / "shards/{007..009}.tar")
    with pytest.raises(DataError, match=r"stands for more than 1,000,000 shards"):
        photos_in(tmp_path / "{0000..9999}" / "{0000..9999}.tar")


def test_a_shard_that_was_replaced_does_not_give_other_photos(pets, tmp_path):
    """Not even by one of the same length and time."""
    first, *_, last = samples = members(pets)
    shard = write_tar(tmp_path / "a.tar", samples)
    found, times = photos_in(shard), shard.stat()
    other = write_tar(tmp_path / "b.tar", [last, *samples[1:-1], first])
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(shard)
    assert shard.stat().st_size == times.st_size
    with pytest.raises(OSError, match=r"a\.tar was changed after its photos were listed"):
        found[0].path.read_bytes()


def cut(shard: Path, size: int) -> Path:
    shard.write_bytes(shard.read_bytes()[:size])
    return shard


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.parquet"])
@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_a_shard_that_is_cut_off_is_never_taken_for_whole(pets, tmp_path, name, share):
    if name == "a.parquet":
        shard = write_parquet(tmp_path / name, pets)
    else:
        shard = write_tar(tmp_path / name, members(pets))
    places = shard
    if name == "a.parquet":  # one that can't be opened is no shard by itself
        places = tmp_path / "?.parquet"
    cut(shard, int(shard.stat().st_size * share))
    with pytest.raises(DataError, match=r"damaged|ends early"):
        photos_in(places)
    *whole, last = stored_photos(places, strict=False)
    assert last.path == shard and last.name == name
    with pytest.raises(OSError, match=r"damaged|ends early"):
        last.path.read_bytes()
    assert len(whole) < 7


def test_an_archive_cut_between_two_members_is_not_whole(pets, tmp_path):
    shard = write_tar(tmp_path / "a.tar", members(pets))
    second = photos_in(shard)[1].path
    assert isinstance(second, StoredPath) and isinstance(second.content, FileSpan)
    cut(shard, second.content.offset - 512)
    with pytest.raises(DataError, match="ends early"):
        photos_in(shard)


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ([[("1.png", b"a")], [("1.png", b"b")]], "twice"),
        ([[("1.png", b"a"), ("1.json", b"{")]], "damaged"),
        ([[("1.png", b"a"), ("1.json", b"[" * 100_000)]], "damaged"),
        ([[("1.png", b"a"), ("1.cls", b"\xff\xfe")]], "not UTF-8"),
    ],
)
def test_shards_that_contradict_themselves(tmp_path, samples, problem):
    with pytest.raises(DataError, match=problem):
        photos_in(write_tar(tmp_path / "a.tar", samples))


@pytest.mark.parametrize(
    "size", [b"\xff" * 12, b"\x80\0\0\0\x7f" + b"\xff" * 7], ids=["-1", "2**63 - 1"]
)
def test_a_size_that_no_member_has_is_not_skipped_for_ever(tmp_path, size):
    shard = write_tar(tmp_path / "a.tar", [[("1.png", b"a")]])
    header = bytearray(shard.read_bytes())
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    shard.write_bytes(header)
    with pytest.raises(DataError, match=r"'1\.png' can't have"):
        photos_in(shard)


def test_a_member_with_holes_is_not_read_as_it_lies_in_the_archive(tmp_path):
    shard = tmp_path / "a.tar"
    info = tarfile.TarInfo("1.png")
    info.size = 4
    info.pax_headers = {"GNU.sparse.map": "0,4", "GNU.sparse.size": "400"}
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"abcd"))
    [found] = photos_in(shard)
    with pytest.raises(OSError, match="without its zeros"):
        found.path.read_bytes()


def test_parquet_with_values_that_python_can_not_have(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    late = pa.array([1 << 55], pa.timestamp("ms"))
    table = pa.table({"image": [b"a"], "label": late})
    pyarrow.parquet.write_table(table, tmp_path / "late.parquet")
    with pytest.raises(DataError, match="damaged"):
        photos_in(tmp_path / "late.parquet")


def test_a_photo_in_parquet_whose_name_is_a_number(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.table({"image": [{"bytes": b"a", "path": 5}]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert [name for name, *_ in read(tmp_path / "a.parquet")] == ["a.parquet/00000001"]


def test_a_shard_is_streamed_sample_by_sample(tmp_path):
    samples = [[(f"{number:05}.png", bytes(200_000))] for number in range(40)]
    shard = write_tar(tmp_path / "a.tgz", samples)
    stream = read_shard(shard, GUESSED_COLUMNS)
    assert next(stream).name == "00000.png"
    stream.close()  # the file is closed, too: a warning would be an error
