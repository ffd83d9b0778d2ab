"""Which files in a folder are photos, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from edgetl.errors import DataError, ImageError
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.discovery import find_images, image_suffixes, walk_images
from edgetl.runtime.results.sharding import Shard


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_order_is_that_of_the_whole_paths_as_text(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b/z.jpg",
        "b.jpg",
        "a b/1.png",
        "a/2.png",
        "a-1/3.png",
        "a.png",
        "Z.jpg",
        "花.webp",
    )
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == sorted(found)
    assert len(found) == 8


def test_only_visible_files_that_pillow_may_open(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a.JPG",
        "b.jpeg",
        "c.tiff",
        "d.txt",
        "e.pdf",
        "f",
        ".g.png",
        ".cache/h.png",
        "i.png~",
        "j.eps",
    )
    assert [path.name for path in find_images(tmp_path)] == ["a.JPG", "b.jpeg", "c.tiff"]
    assert {".jpg", ".png", ".webp", ".bmp", ".gif"} <= image_suffixes()


def test_photos_of_phones_and_cameras_count_whether_they_can_be_read_or_not(tmp_path: Path) -> None:
    touch(tmp_path, "a.HEIC", "b.dng", "c.jxl")
    assert [path.name for path in find_images(tmp_path)] == ["a.HEIC", "b.dng", "c.jxl"]
    with pytest.raises(ImageError) as caught:
        (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
        read_image(tmp_path / "a.HEIC")
    assert caught.value.reason == "it is a HEIC photo, which is not read here: convert it to JPEG"
    (tmp_path / "b.dng").write_bytes(bytes(100))
    with pytest.raises(ImageError, match="of a format that is not read here"):
        read_image(tmp_path / "b.dng")


def test_a_linked_file_is_a_photo_and_a_linked_folder_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png")
    (tmp_path / "linked.png").symlink_to(tmp_path / "real" / "a.png")
    (tmp_path / "real" / "circle").symlink_to(tmp_path)
    assert [path.name for path in find_images(tmp_path)] == ["linked.png", "a.png"]


@pytest.mark.parametrize("name", ["nothing", "file.png"])
def test_what_is_no_folder_is_an_error(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "file.png")
    with pytest.raises(DataError, match=name):
        find_images(tmp_path / name)


def test_a_closed_folder_below_is_an_error_or_an_entry(
    public_folder: Path, without_privileges: Callable[[], AbstractContextManager[None]]
) -> None:
    touch(public_folder, "a/1.png", "closed/2.png", "d/3.png")
    (public_folder / "closed").chmod(0)
    with without_privileges():
        with pytest.raises(DataError, match="closed: Permission denied"):
            find_images(public_folder)
        names = [path.name for path in walk_images(public_folder, strict=False)]
    (public_folder / "closed").chmod(0o700)
    assert names == ["1.png", "closed", "3.png"]


def test_a_photos_part_never_changes() -> None:
    """Machines that work on one job must agree, today's and tomorrow's."""
    assert [
        next(i for i in range(1, 6) if Shard(i, 5).holds(name))
        for name in ("a.jpg", "b/c.png", "花.jpg")
    ] == [2, 1, 1]
