"""A folder to work in that takes its place when all is done, and that the next one removes if its maker was killed."""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

fcntl: Any
try:
    fcntl = import_module("fcntl")
except ImportError:  # Windows: leftovers can't be told from those in use, so they stay
    fcntl = None


@contextmanager
def workplace(parent: Path, name: str) -> Iterator[Path]:
    """A new empty folder in ``parent``, hidden, locked while in use and gone afterwards. Raises OSError.

    name  what ``leftovers`` finds it by
    """
    folder, lock = _locked_folder(parent, name)
    try:
        with suppress(OSError):  # not every disk has rights
            # mkdtemp's folders are for their owner alone; what the folder above gives to all in it stays.
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) & ~0o777 | 0o777 & ~umask())
        yield folder
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def leftovers(parent: Path, name: str) -> Iterator[Path]:
    """Workplaces, and what lies beside them under a longer name, whose makers were killed; in the order of their names."""
    made = re.compile(re.escape(_prefix(name)) + r"[a-z0-9_]{8}(\.\w+)?")  # by mkdtemp
    for folder in sorted(parent.glob(f"{glob.escape(_prefix(name))}*")):
        if made.fullmatch(folder.name) and not folder.is_symlink() and folder.is_dir() and _abandoned(folder):
            yield folder


def _locked_folder(parent: Path, name: str) -> tuple[Path, int | None]:
    """A new folder, and the open handle that locks it. Until it is locked, another may take it for a leftover."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(name), dir=parent))
        if not fcntl:
            return folder, None
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _abandoned(folder: Path) -> bool:
    """True if no living process holds the lock that a maker takes."""
    if fcntl is None:
        return False
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        finally:
            os.close(handle)
    return False


def _prefix(name: str) -> str:
    return f".{name}-"


def umask() -> int:
    """What the rights of new files lack. What ``tempfile`` makes is for its owner alone, whatever this is."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
