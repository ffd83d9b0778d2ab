"""Temporary folders, locked while in use, so that those of killed processes can be removed.

``tempfile.TemporaryDirectory`` leaves its folder behind when the process is killed, and nothing
tells such a folder from one in use. These are locked; the system releases a dead process's lock.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgetl.system.file_lock import try_lock


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """A new, empty, hidden folder in ``parent``, locked while in use and removed afterwards.

    name  what ``abandoned_folders`` finds it by

    Raises OSError.
    """
    with _locked_until_removed(parent, name) as folder:
        with suppress(OSError):  # some file systems have no permissions
            # mkdtemp makes it private; give it the permissions of any new folder, and keep setgid.
            mask = os.umask(0)
            os.umask(mask)
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) & ~0o777 | 0o777 & ~mask)
        yield folder


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """A private ``temporary_folder`` where the system keeps such; those of killed processes go.

    Raises OSError.
    """
    parent = Path(tempfile.gettempdir())
    for leftover in abandoned_folders(parent, name):
        shutil.rmtree(leftover, ignore_errors=True)
    with _locked_until_removed(parent, name) as folder:
        yield folder


@contextmanager
def _locked_until_removed(parent: Path, name: str) -> Iterator[Path]:
    folder, lock = _locked_folder(parent, name)
    try:
        yield folder
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def abandoned_folders(parent: Path, name: str) -> Iterator[Path]:
    """Temporary folders of this ``name`` whose processes were killed, sorted by name.

    Folders whose name has a suffix after that, such as ".old", are included. Each folder is locked
    while it is yielded. Where there are no locks nothing is yielded: it could be in use.
    """
    made = re.compile(re.escape(_prefix(name)) + r"[a-z0-9_]{8}(\.\w+)?")  # by mkdtemp
    for folder in sorted(parent.glob(f"{glob.escape(_prefix(name))}*")):
        is_temporary = made.fullmatch(folder.name) and not folder.is_symlink() and folder.is_dir()
        if is_temporary and os.name == "posix":
            with suppress(OSError), open_folder(folder) as handle:
                if try_lock(handle):
                    yield folder


@contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """The file descriptor of a folder, to lock or to sync. POSIX only. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _locked_folder(parent: Path, name: str) -> tuple[Path, int | None]:
    """A new folder, and the file descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(name), dir=parent))
        if os.name != "posix":  # elsewhere, a folder can't be opened
            return folder, None
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            # Until it is locked, another process may take it for an abandoned one and remove it.
            if try_lock(lock) is not False and folder.exists():
                return folder, lock
            os.close(lock)


def _prefix(name: str) -> str:
    return f".{name}-"
