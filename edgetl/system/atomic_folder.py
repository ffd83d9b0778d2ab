"""Replace a whole folder at once: readers see the old one or the new one, also after a crash.

The new folder is written beside the old one under a hidden name and synced to the disk; then the
two names are exchanged in one system call. The next call removes what a killed process left behind.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgetl.errors import ExportError
from edgetl.system.paths import real_path
from edgetl.system.temporary_folder import abandoned_folders, open_folder, temporary_folder

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # from Linux's fcntl.h
_OLD = ".old"  # suffix of the old folder where two names can't be exchanged


def replace_folder(destination: Path, files: Mapping[str, bytes]) -> None:
    """Make ``destination`` a folder of exactly ``files`` (relative path with "/" → content).

    Raises ExportError if that fails; what was at ``destination`` is then still there.
    """
    destination = real_path(destination)  # a link stays; the folder it leads to is replaced
    with _folder_beside(destination, "What was there before is unchanged.") as new:
        for name, content in files.items():
            _write(new / name, content)
        for folder in (*(path for path in new.rglob("*") if path.is_dir()), new):
            _sync(folder)
        _put_in_place(new, destination)
        _sync(destination.parent)


def require_writable(destination: Path) -> None:
    """Raises ExportError if ``replace_folder`` could not write there: asked before long work."""
    with _folder_beside(real_path(destination), "Choose another folder with -o."):
        pass


def remove_leftovers(destination: Path) -> None:
    """Remove what killed processes left; if there is no folder in place, put the old one back."""
    for leftover in abandoned_folders(destination.parent, _name(destination)):
        if leftover.name.endswith(_OLD) and not destination.exists():
            leftover.rename(destination)
        else:
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _folder_beside(destination: Path, hint: str) -> Iterator[Path]:
    """A temporary folder. Turns an OSError, also of the block, into an ExportError."""
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(destination)
        with temporary_folder(destination.parent, _name(destination)) as folder:
            yield folder
    except OSError as error:
        message = f"{destination} can't be written: {error.strerror or error}."
        raise ExportError(message, hint) from error


def _put_in_place(new: Path, destination: Path) -> None:
    if not destination.exists():
        new.rename(destination)
    elif not _exchange(new, destination):
        # For a moment there is neither; if killed then, the next call puts the old one back.
        old = new.with_name(new.name + _OLD)
        destination.rename(old)
        try:
            new.rename(destination)
        except BaseException:
            old.rename(destination)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system can't."""
    if os.name != "posix":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(second))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    if os.name == "posix":  # elsewhere, a folder can't be opened
        with open_folder(folder) as handle:
            os.fsync(handle)


def _name(destination: Path) -> str:
    return f"{destination.name}.export"
