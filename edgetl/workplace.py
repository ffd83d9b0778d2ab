"""A folder to work in that takes its place when all is done, and that the next one removes if its maker was killed."""

from __future__ import annotations

import glob
import os
import shutil
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
    folder = Path(tempfile.mkdtemp(prefix=_prefix(name), dir=parent))
    lock = os.open(folder, os.O_RDONLY) if fcntl else None
    try:
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        folder.chmod(0o777 & ~umask())  # mkdtemp's folders are for their owner alone
        yield folder
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def leftovers(parent: Path, name: str) -> Iterator[Path]:
    """Workplaces, and what lies beside them under a longer name, whose makers were killed; in the order of their names."""
    for folder in sorted(parent.glob(f"{glob.escape(_prefix(name))}*")):
        if _abandoned(folder):
            yield folder


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
