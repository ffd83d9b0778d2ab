"""One at a time where there are locks; where there are none, work goes on and nothing of another's is removed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgetl.runtime.results.file_formats import open_results
from edgetl.system import file_lock as locking
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
    """A disk that has no locks, or a system (None)."""
    monkeypatch.setattr(
        locking, "_fcntl", flock_that_fails(request.param) if request.param else None
    )


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
def test_without_locks_a_workplace_is_never_taken_for_a_leftover(tmp_path: Path) -> None:
    with temporary_folder(tmp_path, "x") as theirs:
        assert list(abandoned_folders(tmp_path, "x")) == []
        assert theirs.is_dir()


def test_what_is_being_removed_is_not_taken_for_a_workplace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its making and its locking another process may have found a new folder, and hold it to remove it."""
    answers = iter([False, True])
    monkeypatch.setattr("edgetl.system.temporary_folder.try_lock", lambda descriptor: next(answers))
    with temporary_folder(tmp_path, "x") as mine:
        assert len(list(tmp_path.iterdir())) == 2
        assert mine.is_dir()


def test_a_leftover_is_held_while_it_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / ".x-abcdefgh").mkdir()
    for leftover in abandoned_folders(tmp_path, "x"):
        handle = os.open(leftover, os.O_RDONLY)
        assert try_lock(handle) is False
        os.close(handle)
    (found,) = abandoned_folders(tmp_path, "x")
    handle = os.open(found, os.O_RDONLY)
    assert try_lock(handle) is True
    os.close(handle)
