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
from pathlib import Path

from edgetl.system.file_lock import try_lock


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """A new empty folder in ``parent``, hidden, locked while in use and gone afterwards. Raises OSError.

    name  what ``abandoned_folders`` finds it by
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


def abandoned_folders(parent: Path, name: str) -> Iterator[Path]:
    """Workplaces, and what lies beside them under a longer name, whose makers were killed; in the order of their names.

    Each is locked while it is looked at. None where there are no locks: then they can't be told from those in use.
    """
    made = re.compile(re.escape(_prefix(name)) + r"[a-z0-9_]{8}(\.\w+)?")  # by mkdtemp
    for folder in sorted(parent.glob(f"{glob.escape(_prefix(name))}*")):
        if (
            made.fullmatch(folder.name)
            and not folder.is_symlink()
            and folder.is_dir()
            and os.name == "posix"
        ):
            with suppress(OSError), _opened(folder) as handle:
                if try_lock(handle):
                    yield folder


def _locked_folder(parent: Path, name: str) -> tuple[Path, int | None]:
    """A new folder, and the open handle that locks it. Until it is locked, another may take it for a leftover."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(name), dir=parent))
        if os.name != "posix":  # elsewhere a folder can't be opened
            return folder, None
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            if try_lock(lock) is not False and folder.exists():
                return folder, lock
            os.close(lock)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _prefix(name: str) -> str:
    return f".{name}-"


def umask() -> int:
    """What the rights of new files lack. What ``tempfile`` makes is for its owner alone, whatever this is."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
