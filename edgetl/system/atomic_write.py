"""Write a file in one step: readers see the old content or the new one, also after a crash."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from edgetl.errors import EdgetlError


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it to ``path``.

    The content is synced to the disk before the rename, so that a power cut can't leave an empty
    file. Raises OSError, or what ``write`` raises; what was at ``path`` is then unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.unlink(missing_ok=True)  # of a killed process with the same id
        temporary.open("xb").close()  # "x": don't follow a link that someone else put there
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def unfinished_writes(path: Path) -> Iterator[Path]:
    """Temporary files that killed calls of ``atomic_write`` for ``path`` left. Raises OSError."""
    return path.parent.glob(f".{glob.escape(path.name)}.*.part")


def write_report_file(path: str | Path, content: str) -> None:
    """Write ``content`` as UTF-8 to ``path``, atomically; missing folders are created.

    A link, or what is not a regular file (a pipe, /dev/stdout), is written to directly: it must not
    be replaced.
    Raises EdgetlError if it can't be written.
    """
    path = Path(path)

    def write(file: Path) -> None:
        # File names may hold bytes that are not UTF-8; they are written as escapes.
        file.write_text(content, encoding="utf-8", errors="backslashreplace", newline="\n")

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            write(path)
        else:
            atomic_write(path, write)
    except OSError as error:
        raise EdgetlError(
            f"The report {path} can't be written: {error.strerror or error}."
        ) from error
