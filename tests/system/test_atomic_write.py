"""A file is replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgetl.system.atomic_write import atomic_write, unfinished_writes


def test_the_file_gets_the_new_content(tmp_path: Path) -> None:
    for content in ("old", "new"):
        atomic_write(tmp_path / "file.txt", lambda path, text=content: path.write_text(text))
    assert (tmp_path / "file.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_failed_write_changes_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "file.txt", fail)
    assert (tmp_path / "file.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_what_a_killed_process_left_is_found(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        atomic_write(tmp_path / "a[1].txt", lambda path: os._exit(0))
    os.waitpid(child, 0)
    (tmp_path / ".a1.txt.7.part").touch()  # of another file
    assert [path.name for path in unfinished_writes(tmp_path / "a[1].txt")] == [
        f".a[1].txt.{child}.part"
    ]


def test_a_link_at_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f".file.txt.{os.getpid()}.part").symlink_to(tmp_path / "mine")
    atomic_write(tmp_path / "file.txt", lambda path: path.write_text("new"))
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "file.txt").read_text() == "new"
