"""A folder is replaced whole or not at all, wherever the process is killed.

Private functions are replaced here to make single steps fail.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from edgetl.errors import ExportError
from edgetl.system import atomic_folder
from edgetl.system.atomic_folder import replace_folder, require_writable
from edgetl.system.temporary_folder import scratch_folder, temporary_folder

KILL_POINTS = Path(__file__).parents[1] / "helpers" / "kill_points.py"
OLD = {"model.onnx": "old", "golden/0.jpg": "old photo", "only-old": "x"}
NEW = {"model.onnx": "new", "golden/0.jpg": "new photo", "manifest.json": "new"}


def killed_at_every_line(folder: Path, how: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, KILL_POINTS, folder, how], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) > 40  # that many lines run
    assert not outcomes[-1]["died"]
    return outcomes


def test_killed_at_any_line_there_is_the_old_or_the_new_folder(tmp_path: Path) -> None:
    outcomes = killed_at_every_line(tmp_path / "bundle", "swap")
    for outcome in outcomes:
        assert outcome["seen"] in (OLD, NEW)
        assert outcome["recovered"] == outcome["seen"]
        assert outcome["left"] == ["bundle"]
    assert {outcome["seen"]["model.onnx"] for outcome in outcomes} == {"old", "new"}


def test_without_an_exchange_of_names_the_next_call_puts_the_old_folder_back(
    tmp_path: Path,
) -> None:
    outcomes = killed_at_every_line(tmp_path / "bundle", "rename")
    for outcome in outcomes:
        assert outcome["recovered"] in (OLD, NEW)
        assert outcome["left"] == ["bundle"]
    seen = [outcome["seen"] for outcome in outcomes]
    assert {} in seen  # one was killed between the two renames


def test_another_process_at_work_is_left_alone(tmp_path: Path) -> None:
    destination = tmp_path / "bundle"
    with temporary_folder(tmp_path, "bundle.export") as theirs:
        (theirs / "half").write_bytes(b"half")
        replace_folder(destination, {"whole": b"whole"})
        assert (theirs / "half").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


def test_what_a_killed_export_left_is_gone_when_the_next_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = [tmp_path / name for name in (".bundle.export-0a1b2c3d", ".edgetl-export-0a1b2c3d")]
    for folder in left:
        folder.mkdir()
    with scratch_folder("edgetl-export") as theirs:
        require_writable(tmp_path / "bundle")
        with scratch_folder("edgetl-export") as ours:
            assert sorted(tmp_path.iterdir()) == sorted((theirs, ours))
            assert ours.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.iterdir())


def test_a_failed_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_folder(tmp_path / "bundle", {"a": b"old"})

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_folder, "_write", full)
    with pytest.raises(ExportError, match="No space left"):
        replace_folder(tmp_path / "bundle", {"a": b"new"})
    assert (tmp_path / "bundle/a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_is_on_the_disk_before_its_name_points_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, put_in_place = os.fsync, atomic_folder._put_in_place
    synced: dict[int, int] = {}  # inode → bytes that it had
    unsynced: list[list[str]] = []

    def record(handle: int) -> None:
        fsync(handle)
        synced[os.fstat(handle).st_ino] = os.fstat(handle).st_size

    def look(new: Path, destination: Path) -> None:
        paths = [new, *new.rglob("*")]
        unsynced.append(
            [path.name for path in paths if synced.get(path.stat().st_ino) != path.stat().st_size]
        )
        synced.clear()
        put_in_place(new, destination)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(atomic_folder, "_put_in_place", look)
    for content in (OLD, NEW):  # by a rename, and by an exchange
        replace_folder(tmp_path / "bundle", {name: text.encode() for name, text in content.items()})
        assert set(synced) == {tmp_path.stat().st_ino}  # the name itself
    assert unsynced == [[], []]


def test_if_the_new_folder_can_not_be_renamed_the_old_one_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_folder(tmp_path / "bundle", {"a": b"old"})
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if path.name.startswith(".") and not path.name.endswith(".old"):
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(atomic_folder, "_exchange", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(ExportError, match="Input/output error"):
        replace_folder(tmp_path / "bundle", {"a": b"new"})
    assert (tmp_path / "bundle/a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_behind_a_link_the_folder_itself_is_replaced(tmp_path: Path) -> None:
    replace_folder(tmp_path / "disk/pets", {"a": b"old"})
    (tmp_path / "link").symlink_to(tmp_path / "disk/pets")
    replace_folder(tmp_path / "link", {"a": b"new"})
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk/pets/a").read_bytes() == b"new"
