"""Paths of photos that are no files: they behave as paths do, and print as addresses."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from edgetl.errors import ImageError
from edgetl.runtime.images.decode import describe, may_pass, read_image
from edgetl.runtime.images.stored_path import FileSpan, StoredPath, as_place, is_address


def test_an_address_keeps_its_form_in_names_parents_and_children():
    photo = StoredPath.at("s3://bucket/pets/cat/1.jpg")
    folder = StoredPath.at("s3://bucket/pets")
    assert str(photo) == photo.as_posix() == describe(photo) == "s3://bucket/pets/cat/1.jpg"
    assert photo.parent.parent == folder and hash(photo.parent.parent) == hash(folder)
    assert folder / "cat" / "1.jpg" == photo and str(folder / "cat") == "s3://bucket/pets/cat"
    assert photo.is_relative_to(folder) and photo.relative_to(folder).as_posix() == "cat/1.jpg"
    assert (photo.suffix, photo.name, photo.absolute()) == (".jpg", "1.jpg", photo)
    assert sorted([folder / "b", folder / "a"]) == [folder / "a", folder / "b"]


def test_an_address_without_a_host():
    photo = StoredPath.at("file:///pets/cat/1.jpg")
    assert (
        str(photo) == "file:///pets/cat/1.jpg" and str(photo.parent / "2") == "file:///pets/cat/2"
    )


def test_what_pathlib_would_shorten_is_still_asked_for():
    assert StoredPath.at("s3://bucket/a//b/./1.jpg").address == "s3://bucket/a//b/./1.jpg"


@pytest.mark.parametrize(
    "name", ["s3://a", "memory://", "file:///a", "https://host/1.jpg", "simplecache::s3://a/b"]
)
def test_addresses(name):
    assert is_address(name) and isinstance(as_place(name), StoredPath)


@pytest.mark.parametrize("name", ["photos", "/photos", "C://photos", "s3:/a", "a/s3://b", ""])
def test_names_that_are_no_addresses(name):
    assert not is_address(name) and not isinstance(as_place(name), StoredPath)


def test_a_photo_within_a_file_is_read_from_there_in_another_process_too(tmp_path):
    (tmp_path / "shard").write_bytes(b"0123456789")
    photo = StoredPath.holding(
        tmp_path / "shard/1.jpg", FileSpan(tmp_path / "shard", 2, 3, object())
    )
    for found in (photo, pickle.loads(pickle.dumps(photo))):
        assert found == photo and found == Path(tmp_path / "shard/1.jpg")
        assert found.read_bytes() == found.open("rb").read() == b"234"
        assert found.stat().st_size == 3 and found.is_file() and not found.is_dir()


def test_a_file_that_has_become_shorter_is_an_error(tmp_path):
    (tmp_path / "shard").write_bytes(b"0123")
    photo = StoredPath.holding("1.jpg", FileSpan(tmp_path / "shard", 2, 3))
    with pytest.raises(ImageError, match=r"1\.jpg: .*shorter"):
        read_image(photo)


def test_an_error_is_raised_when_the_photo_is_read():
    photo = StoredPath.holding("s3://bucket/000.tar/1.jpg", OSError("the row holds no photo"))
    with pytest.raises(ImageError, match=r"s3://bucket/000\.tar/1\.jpg: .*holds no photo") as error:
        read_image(photo)
    assert not may_pass(error.value.reason) and not photo.exists()


def test_nothing_is_written():
    for mode in ("w", "wb", "r+b", "ab"):
        with pytest.raises(ValueError, match="only be opened"):
            StoredPath.holding("memory://x/1.jpg", b"").open(mode)
