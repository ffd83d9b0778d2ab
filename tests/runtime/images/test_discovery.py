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


def test_photos_are_sorted_by_their_whole_path(tmp_path: Path) -> None:
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


def test_only_visible_files_with_the_suffix_of_a_photo(tmp_path: Path) -> None:
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


def test_camera_formats_count_as_photos_even_if_they_can_not_be_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.HEIC", "b.dng", "c.jxl", "d.hif")
    assert [path.name for path in find_images(tmp_path)] == ["a.HEIC", "b.dng", "c.jxl", "d.hif"]
    (tmp_path / "b.dng").write_bytes(bytes(100))
    with pytest.raises(ImageError, match="of a format that is not read here"):
        read_image(tmp_path / "b.dng")


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png")
    (tmp_path / "linked.png").symlink_to(tmp_path / "real" / "a.png")
    (tmp_path / "real" / "circle").symlink_to(tmp_path)
    assert [path.name for path in find_images(tmp_path)] == ["linked.png", "a.png"]


@pytest.mark.parametrize("name", ["nothing", "file.png"])
def test_a_path_that_is_not_a_folder_is_an_error(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "file.png")
    with pytest.raises(DataError, match=name):
        find_images(tmp_path / name)


def test_a_folder_that_may_not_be_read_is_an_error_or_an_entry(
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


def test_the_shard_of_a_photo_never_changes() -> None:
    """Machines that share a job must agree, whatever version they run."""
    assert [
        next(i for i in range(1, 6) if Shard(i, 5).holds(name))
        for name in ("a.jpg", "b/c.png", "花.jpg")
    ] == [2, 1, 1]
