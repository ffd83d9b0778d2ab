"""Locks keep two processes apart; without them, work goes on and nothing in use is removed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgetl.runtime.results.result_files import open_results
from edgetl.system import file_lock
from edgetl.system.atomic_folder import replace_folder
from edgetl.system.file_lock import try_lock
from edgetl.system.temporary_folder import abandoned_folders, temporary_folder
from edgetl.training.config.run_lock import lock_run_folder


def flock_that_fails(code: int) -> SimpleNamespace:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    return SimpleNamespace(flock=flock, LOCK_EX=2, LOCK_NB=4)


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, None])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, or an operating system without them (None)."""
    flock = flock_that_fails(request.param) if request.param else None
    monkeypatch.setattr(file_lock, "_fcntl", flock)  # private: there is no such system here


def test_a_lock_is_held_until_it_is_closed(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    assert try_lock(first) is True
    assert try_lock(second) is False
    os.close(first)
    assert try_lock(second) is True
    os.close(second)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_work_goes_on(tmp_path: Path) -> None:
    with lock_run_folder(tmp_path):
        pass
    with open_results(tmp_path / "answers.csv", "model", ("a", "b")):
        pass
    replace_folder(tmp_path / "bundle", {"a": b"1"})
    replace_folder(tmp_path / "bundle", {"a": b"2"})
    assert (tmp_path / "bundle/a").read_bytes() == b"2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.csv", "bundle"]


@pytest.mark.usefixtures("no_locks")
def test_without_locks_no_temporary_folder_counts_as_abandoned(tmp_path: Path) -> None:
    with temporary_folder(tmp_path, "x") as theirs:
        assert list(abandoned_folders(tmp_path, "x")) == []
        assert theirs.is_dir()


def test_a_new_folder_that_another_process_has_locked_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between creation and lock, another process may take it for an abandoned one and remove it."""
    answers = iter([False, True])
    monkeypatch.setattr("edgetl.system.temporary_folder.try_lock", lambda descriptor: next(answers))
    with temporary_folder(tmp_path, "x") as mine:
        assert len(list(tmp_path.iterdir())) == 2
        assert mine.is_dir()


def test_an_abandoned_folder_is_locked_while_it_is_yielded(tmp_path: Path) -> None:
    (tmp_path / ".x-abcdefgh").mkdir()
    for folder in abandoned_folders(tmp_path, "x"):
        handle = os.open(folder, os.O_RDONLY)
        assert try_lock(handle) is False
        os.close(handle)
    (found,) = abandoned_folders(tmp_path, "x")
    handle = os.open(found, os.O_RDONLY)
    assert try_lock(handle) is True
    os.close(handle)
